"""Results of commands as one page that needs no network."""

from __future__ import annotations

from ghnq.report.document import Document as Document
from ghnq.report.page import write_page as write_page
from ghnq.report.readers import read_results as read_results
