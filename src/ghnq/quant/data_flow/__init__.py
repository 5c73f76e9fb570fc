"""The data flow of a network: which module consumes which tensor."""

from __future__ import annotations

from ghnq.quant.data_flow.channel_relations import ChannelRelation as ChannelRelation
from ghnq.quant.data_flow.observe import DataFlow as DataFlow
from ghnq.quant.data_flow.observe import observe_data_flow as observe_data_flow
