// Scales that people tell apart however they see colors: Okabe and Ito's, and viridis.

import { scaleLinear } from "d3-scale";
import { interpolateViridis } from "d3-scale-chromatic";
import type { Column } from "./zoo";

export const CATEGORIES = [
  "#0072b2",
  "#e69f00",
  "#009e73",
  "#cc79a7",
  "#56b4e9",
  "#d55e00",
  "#f0e442",
  "#999999",
];
const NONE = "#8888";

export interface Legend {
  label: string;
  entries: { text: string; color: string }[];
}

export function colorsOf(column: Column | undefined): {
  color: (row: number) => string;
  legend: Legend | null;
} {
  if (!column) return { color: () => CATEGORIES[0], legend: null };
  if (column.type === "text") {
    const of = (code: number) => (code < 0 ? NONE : CATEGORIES[Math.min(code, CATEGORIES.length - 1)]);
    const entries = column.levels.slice(0, CATEGORIES.length).map((text, code) => ({ text, color: of(code) }));
    if (column.levels.length > CATEGORIES.length) entries[CATEGORIES.length - 1].text = "others";
    return { color: (row) => of(column.codes[row]), legend: { label: column.label, entries } };
  }
  const [low, high] = extent(column.values);
  // the ends of viridis that cannot be told from the page
  const shades = matchMedia("(prefers-color-scheme: dark)").matches ? [0.2, 1] : [0, 0.9];
  const scale = scaleLinear([low, high], shades).clamp(true);
  const color = (value: number | null) => (value === null ? NONE : interpolateViridis(scale(value)));
  const entries = [low, (low + high) / 2, high].map((value) => ({
    text: String(Number(value.toPrecision(3))),
    color: color(value),
  }));
  return { color: (row) => color(column.values[row]), legend: { label: column.label, entries } };
}

export function extent(values: Iterable<number | null>): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}
