// Points of the map, and lines through a model's epochs.

import type { Embedding } from "../../lib/embedding.svelte";
import type { Column, EpochsTable } from "../../lib/zoo";

export interface Point {
  row: number;
  x: number;
  y: number;
}
export interface Line {
  row: number;
  points: { x: number; y: number; epoch: number }[];
}
export interface Positions {
  points: Point[];
  lines: Line[];
}
export const NOWHERE: Positions = { points: [], lines: [] };
/** The column that counts epochs, which are on no axis of their own. */
const EPOCH = "last_epoch";

export function ofColumns(x: Column | undefined, y: Column | undefined, rows: number[]): Point[] {
  if (x?.type !== "number" || y?.type !== "number") return [];
  return rows.flatMap((row) => {
    const [left, up] = [x.values[row], y.values[row]];
    return left === null || up === null ? [] : [{ row, x: left, y: up }];
  });
}

/** Each model's last epoch as its point; lines through those that have several. */
export function ofEmbedding(embedding: Embedding, rowOf: ReadonlyMap<string, number>, rows: number[]): Positions {
  const areListed = new Set(rows);
  const lines = new Map<number, Line>();
  embedding.models.forEach((model, n) => {
    const row = rowOf.get(embedding.ids[model]);
    if (row === undefined || !areListed.has(row)) return;
    if (!lines.has(row)) lines.set(row, { row, points: [] });
    lines.get(row)!.points.push({ x: embedding.x[n], y: embedding.y[n], epoch: embedding.epochs[n] });
  });
  const points = [...lines.values()].map(({ row, points }) => ({ row, x: points.at(-1)!.x, y: points.at(-1)!.y }));
  return { points, lines: [...lines.values()].filter(({ points }) => points.length > 1) };
}

/** Whether a column has a value for every epoch. */
export function hasEpochs(column: Column | undefined): boolean {
  return column?.group === "metric" || column?.name === EPOCH;
}

/** The metrics of two columns, to be asked for. */
export function metricsOf(x: string, y: string): string[] {
  return [...new Set([x, y])].filter((name) => name !== EPOCH);
}

export function linesOfColumns(
  table: EpochsTable,
  x: string,
  y: string,
  rowOf: ReadonlyMap<string, number>,
  rows: number[],
): Line[] {
  const values = (name: string) => (name === EPOCH ? table.epochs : (table.metrics[name] ?? []));
  const [xs, ys] = [values(x), values(y)];
  const lines = new Map(rows.map((row): [number, Line] => [row, { row, points: [] }]));
  table.models.forEach((model, n) => {
    const line = lines.get(rowOf.get(table.ids[model]) ?? -1);
    const [left, up] = [xs[n], ys[n]];
    if (line && typeof left === "number" && typeof up === "number") {
      line.points.push({ x: left, y: up, epoch: table.epochs[n] });
    }
  });
  return [...lines.values()].filter(({ points }) => points.length > 1);
}
