// How large a point is, and of which shape, by a column.

import { scaleSqrt } from "d3-scale";
import { extent } from "../../lib/colors";
import type { Column } from "../../lib/zoo";

const SHAPES = ["circle", "square", "triangle", "diamond", "cross"] as const;
export type Shape = (typeof SHAPES)[number];
const SIGNS: Record<Shape, string> = { circle: "●", square: "■", triangle: "▲", diamond: "◆", cross: "✚" };

/** Radius of a row's point in pixels, `usual` where no column says. */
export function sizesOf(column: Column | undefined, usual: number): (row: number) => number {
  if (column?.type !== "number") return () => usual;
  const scale = scaleSqrt(extent(column.values), [usual * 0.6, usual * 2.6]);
  return (row) => (column.values[row] === null ? usual * 0.6 : scale(column.values[row]!));
}

export function shapesOf(column: Column | undefined): {
  shape: (row: number) => Shape;
  legend: { text: string; sign: string }[];
} {
  if (!column) return { shape: () => "circle", legend: [] };
  const texts =
    column.type === "text"
      ? column.levels
      : [...new Set(column.values.filter((value) => value !== null))].sort((a, b) => a - b).map(String);
  const codes = new Map(texts.map((text, code) => [text, Math.min(code, SHAPES.length - 1)]));
  const of = (text: string) => SHAPES[codes.get(text) ?? 0];
  const shape = (row: number) =>
    of(column.type === "text" ? column.levels[column.codes[row]] : String(column.values[row]));
  const legend = texts.slice(0, SHAPES.length).map((text) => ({ text, sign: SIGNS[of(text)] }));
  if (texts.length > SHAPES.length) legend[SHAPES.length - 1].text = "others";
  return { shape, legend };
}

/** Adds a shape to the path that is being drawn; all have about the same area. */
export function trace(c: CanvasRenderingContext2D, shape: Shape, x: number, y: number, r: number): void {
  if (shape === "circle") {
    c.moveTo(x + r, y);
    c.arc(x, y, r, 0, 2 * Math.PI);
  } else if (shape === "square") {
    c.rect(x - 0.89 * r, y - 0.89 * r, 1.78 * r, 1.78 * r);
  } else if (shape === "cross") {
    const [long, half] = [1.3 * r, 0.42 * r];
    c.rect(x - long, y - half, 2 * long, 2 * half);
    c.rect(x - half, y - long, 2 * half, 2 * long);
  } else {
    const corners: [number, number][] =
      shape === "triangle"
        ? [[0, -1.45], [1.3, 0.85], [-1.3, 0.85]]
        : [[0, -1.35], [1.2, 0], [0, 1.35], [-1.2, 0]];
    corners.forEach(([dx, dy], n) => (n ? c.lineTo(x + dx * r, y + dy * r) : c.moveTo(x + dx * r, y + dy * r)));
    c.closePath();
  }
}
