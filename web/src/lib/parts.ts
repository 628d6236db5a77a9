// The splits and evaluation sets on which models are scored, each with its color in curves.

const SPLITS = { train: "#999999", val: "#e69f00", test: "#0072b2" } as const;
const SET_COLORS = ["#009e73", "#cc79a7", "#d55e00", "#56b4e9"];

export interface Part {
  name: string;
  color: string;
}

/** Those whose metrics have these names, such as `val_accuracy`, or `v2_accuracy` of the set `v2`. */
export function partsOf(metrics: string[], kinds: string[]): Part[] {
  const names = new Set(metrics.flatMap((metric) => kinds.flatMap((kind) => partOf(metric, kind))));
  const splits = Object.entries(SPLITS).map(([name, color]) => ({ name, color }));
  const sets = [...names].filter((name) => !Object.hasOwn(SPLITS, name)).sort();
  const colored = sets.map((name, i) => ({ name, color: SET_COLORS[i % SET_COLORS.length] }));
  return [...splits.filter(({ name }) => names.has(name)), ...colored];
}

function partOf(metric: string, kind: string): string[] {
  const name = metric.endsWith(`_${kind}`) ? metric.slice(0, -kind.length - 1) : "";
  return /^[a-z][a-z0-9]*$/.test(name) ? [name] : []; // not `val_ema`
}
