// Statistics of lists of numbers.
const sum = values => values.reduce((total, value) => total + value, 0);
const mean = values => sum(values) / values.length;

// Standard error of the mean, with the sample standard deviation; null for one value.
function standardError(values) {
  if (values.length < 2) return null;
  const centre = mean(values);
  return Math.sqrt(sum(values.map(value => (value - centre) ** 2)) / (values.length - 1) / values.length);
}

// Linear interpolation between order statistics; `sorted` ascends.
function quantile(sorted, share) {
  const place = share * (sorted.length - 1), low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

const ascending = values => [...values].sort((a, b) => a - b);

// The 97.5 % quantile of Student's t with `n` degrees of freedom. From 3 on: Abramowitz & Stegun, 26.7.5.
function studentT(n) {
  if (n === 1) return 12.706204736;
  if (n === 2) return 4.302652730;
  const z = 1.959963985, z3 = z ** 3, z5 = z ** 5, z7 = z ** 7, z9 = z ** 9;
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n ** 2)
    + (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * n ** 3)
    + (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / (92160 * n ** 4);
}

// Mean of paired differences and the half width of its 95 % interval; null for one pair.
function pairedDifference(differences) {
  const error = standardError(differences);
  return { mean: mean(differences), half: error == null ? null : studentT(differences.length - 1) * error };
}

// Kendall's tau-b of pairs; `compare` orders their first and second parts. Null where all of one part are equal.
function kendallTau(pairs, compare) {
  let agree = 0, first = 0, second = 0;
  for (let i = 0; i < pairs.length; i++)
    for (let j = 0; j < i; j++) {
      const a = Math.sign(compare(pairs[i][0], pairs[j][0])), b = Math.sign(compare(pairs[i][1], pairs[j][1]));
      agree += a * b;
      first += a !== 0;
      second += b !== 0;
    }
  return first && second ? agree / Math.sqrt(first * second) : null;
}

// Points of which no other has a lower cost and at least the same accuracy, by rising cost.
function paretoFront(points) {
  const front = [];
  let best = -Infinity;
  for (const point of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (point.y > best) { front.push(point); best = point.y; }
  }
  return front;
}

// At most `most` of the values, evenly spread over their order by `key`, the first and the last among them.
function spread(values, most, key) {
  if (values.length <= most) return values;
  const sorted = [...values].sort((a, b) => key(a) - key(b));
  return Array.from({ length: most }, (_, i) => sorted[Math.round(i * (sorted.length - 1) / (most - 1))]);
}

// A number from 0 to 1 that looks random and depends on `seed` only.
function jitter(seed) {
  const value = Math.sin(seed * 12.9898 + 4.1414) * 43758.5453;
  return value - Math.floor(value);
}

function runningMean(values, window) {
  return values.map((_, i) => {
    const part = values.slice(Math.max(0, i - window), i + window + 1).filter(value => value != null);
    return part.length ? mean(part) : null;
  });
}
