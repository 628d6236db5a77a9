// What the server, or a static site, tells of a zoo; tables come column by column.

/** Whether a zoo grows, or how its last growing ended; `silent`: it has not been heard of for long. */
export type GrowthState =
  | "growing"
  | "silent"
  | "finished"
  | "incomplete"
  | "interrupted"
  | "broken"
  | "unreadable"
  | "none";

export interface Summary {
  name: string;
  /** Of the zoo, as commands and Python write it. */
  path: string;
  models: number;
  version: string;
  can_write?: boolean;
  /** Whether there are positions by weights. */
  embeddings?: boolean;
  /** Whether there is what models do with images. */
  behavior?: boolean;
  token?: string;
  /** Another text once anything of the zoo has changed; a static site has none. */
  stamp?: string;
  /** A static site says nothing. */
  growth?: GrowthState;
}

interface NumberColumn {
  type: "number";
  values: (number | null)[];
}
interface TextColumn {
  type: "text";
  levels: string[];
  codes: number[];
}
export type Group = "fact" | "factor" | "score" | "metric" | "training" | "measure";
export type Column = { name: string; label: string; group: Group } & (NumberColumn | TextColumn);

export interface ModelsTable {
  ids: string[];
  columns: Column[];
  shown: string[];
  constants: Record<string, unknown>;
}

export interface Epoch {
  epoch: number;
  kept: boolean;
  [metric: string]: number | boolean | null;
}

/** Metrics of all epochs, column by column; `models` are numbers into `ids`. */
export interface EpochsTable {
  ids: string[];
  models: number[];
  epochs: number[];
  metrics: Record<string, (number | null)[]>;
}

export interface Measured {
  measure: string;
  part: string;
  epoch: number;
  value: number | null;
  unit: string;
  data: string;
  split: string;
  settings: string;
}

export interface ModelPage {
  id: string;
  stage: string;
  status: string;
  message: string;
  parent: { model: string; epoch: number } | null;
  children: string[];
  siblings: string[];
  ingredients: { model: string; epoch: number }[];
  operator: string | null;
  tags: string[];
  note: string;
  factors: Record<string, unknown>;
  differing: string[];
  trained: Record<string, unknown>;
  classes: string[];
  outputs: number;
  epochs: Epoch[];
  measured: Measured[];
  /** Lines of arguments, not quoted for a shell. */
  commands: string[][];
  python: string[];
}

export interface StudyPage {
  name: string;
  title: string;
  study: string;
  date: string;
}

export interface Studies {
  pages: StudyPage[];
  lineages: { name: string; date: string }[];
}

export interface RecoveredParent {
  /** Of other candidates: "" is a root. */
  model: string;
  probability: number | null;
}

export interface RecoveredModel {
  /** An id, or `ID@EPOCH`. */
  model: string;
  parents: RecoveredParent[];
  root: number | null;
  others: RecoveredParent[];
  true_parents: string[] | null;
  status: "right" | "tied" | "wrong" | "unknown";
}

export interface RecoveredLineage {
  method: string;
  date: string;
  models: RecoveredModel[];
}

export async function read<T>(address: string, signal?: AbortSignal): Promise<T> {
  const response = await fetch(`api/${address}`, { signal });
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

/** Reads for an effect, which calls what this returns once nobody waits for the answer any more. */
export function reading<T>(address: string, onAnswer: (answer: T) => void, onError: (message: string) => void): () => void {
  const controller = new AbortController();
  read<T>(address, controller.signal).then(onAnswer, (error: Error) => {
    if (!controller.signal.aborted) onError(error.message);
  });
  return () => controller.abort();
}

export async function send<T>(address: string, values: object, token: string): Promise<T> {
  const response = await fetch(`api/${address}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-vitarium-token": token },
    body: JSON.stringify(values),
  });
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

/** A file that the server sends, with the name that it gives it. */
export async function fetchFile(address: string): Promise<{ name: string; content: Blob }> {
  const response = await fetch(`api/${address}`);
  if (!response.ok) throw new Error(await reason(response));
  const name = /filename="([\w.-]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "model";
  return { name, content: await response.blob() };
}

async function reason(response: Response): Promise<string> {
  const text = await response.text();
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text || response.statusText;
  }
}

export function hasValue(column: Column, row: number): boolean {
  return column.type === "number" ? column.values[row] !== null : column.codes[row] >= 0;
}

export function textOf(column: Column, row: number): string {
  if (column.type === "number") {
    const value = column.values[row];
    if (value === null) return "";
    const decimals = decimalsOf(column);
    return decimals === null ? formatNumber(value) : value.toFixed(decimals);
  }
  const code = column.codes[row];
  if (code < 0) return "";
  return shortIds(column.levels[code]);
}

const decimalsOfColumns = new WeakMap<Column, number | null>();

/** Digits behind the point that all of a column's results have, so that they line up; null: each has its own. */
function decimalsOf(column: Column & NumberColumn): number | null {
  const known = decimalsOfColumns.get(column);
  if (known !== undefined) return known;
  let [low, high, areWhole] = [Infinity, 0, true];
  for (const value of column.values) {
    if (!value) continue;
    const size = Math.abs(value);
    [low, high, areWhole] = [Math.min(low, size), Math.max(high, size), areWhole && Number.isInteger(value)];
  }
  const areResults = ["score", "metric", "measure"].includes(column.group);
  const isNarrow = high >= 1e-3 && high < 1e5 && low >= high / 1000; // else the small ones would lose their digits
  const decimals = areResults && !areWhole && isNarrow ? Math.max(0, 3 - Math.floor(Math.log10(high))) : null;
  decimalsOfColumns.set(column, decimals);
  return decimals;
}

/** "1 model", "2 models". */
export const counted = (count: number, noun: string, nouns = `${noun}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? noun : nouns}`;

/** Ids in a text by their first 8 digits, as everywhere. */
export function shortIds(text: string): string {
  return text.replace(/\b([0-9a-f]{8})[0-9a-f]{4}\b/g, "$1");
}

export function formatNumber(value: number): string {
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(2).replace(/\.?0+e/, "e");
}

/** Rows in the order of a column's values; those without a value come last in either direction. */
export function sortRows(rows: number[], column: Column, isDescending: boolean): number[] {
  const sign = isDescending ? -1 : 1;
  const rank = rankOf(column);
  return [...rows].sort((a, b) => {
    const [x, y] = [rank(a), rank(b)];
    if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1;
    return sign * (x - y);
  });
}

function rankOf(column: Column): (row: number) => number | null {
  if (column.type === "number") return (row) => column.values[row];
  const order = column.levels.map((_, code) => code);
  order.sort((a, b) => column.levels[a].localeCompare(column.levels[b], "en", { numeric: true }));
  const ranks = new Array<number>(order.length);
  order.forEach((code, rank) => (ranks[code] = rank));
  return (row) => (column.codes[row] < 0 ? null : ranks[column.codes[row]]);
}

/** The model of a checkpoint's name: `ID@EPOCH`, or the id alone. */
export function modelOf(checkpoint: string): string {
  return checkpoint.split("@", 1)[0];
}
