// How a selection is said to programs: by its ids where they are few, else by a condition that gives it.

import { commandLine, literal } from "../lib/shell";
import type { ModelsTable } from "../lib/zoo";

/** Models that a command line lists by their ids. */
export const MOST_LISTED = 20;

export interface Choice {
  /** Arguments of a command: ids, or a condition; null where the models can only be listed, and are too many. */
  words: string[] | null;
  /** A condition over the table `models`, which `vitarium query` takes too. */
  condition: string | null;
}

/** Rows by the tags that models have: a tag is the name of a selection. */
export function namedSelections(table: ModelsTable): Map<string, Set<number>> {
  const named = new Map<string, Set<number>>();
  const add = (tags: string, row: number) => {
    for (const tag of tags.split(", ")) {
      if (!named.has(tag)) named.set(tag, new Set());
      named.get(tag)!.add(row);
    }
  };
  const column = table.columns.find(({ name }) => name === "tags");
  if (column?.type === "text") column.codes.forEach((code, row) => code >= 0 && add(column.levels[code], row));
  else if (typeof table.constants.tags === "string") table.ids.forEach((_, row) => add(table.constants.tags as string, row));
  return new Map([...named].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true })));
}

export function isSame(one: ReadonlySet<number>, other: ReadonlySet<number>): boolean {
  return one.size === other.size && [...one].every((row) => other.has(row));
}

/** The names that all models of a selection have, and no others. */
export function namesOf(selected: ReadonlySet<number>, named: Map<string, Set<number>>): string[] {
  return [...named].flatMap(([tag, rows]) => (isSame(rows, selected) ? [tag] : []));
}

/**
 * How programs are told of the selected models.
 * @param names that the selection has
 * @param filter the SQL condition that gives just these, or "" where none does
 */
export function chosen(ids: string[], total: number, names: string[], filter: string): Choice {
  if (ids.length <= MOST_LISTED) return { words: ids, condition: `id IN (${ids.map(literal).join(", ")})` };
  if (ids.length === total) return { words: ["--where", "true"], condition: "true" };
  if (names.length) {
    const condition = `list_contains(string_split(tags, ', '), ${literal(names[0])})`;
    return { words: ["--where", condition], condition };
  }
  return { words: filter ? ["--where", filter] : null, condition: null };
}

export function selectOf(condition: string): string {
  return `SELECT * FROM models WHERE ${condition}`;
}

export interface Command {
  title: string;
  /** Of variants that can be chosen, what each adds to the command. */
  variants: Record<string, string[]>;
  words: string[];
}

const MERGES = ["uniform_soup", "greedy_soup", "learned_soup", "model_stock", "task_arithmetic", "ties", "fisher_merging", "regmean"];
const PAIR_MERGES = ["interpolation", "slerp"];
const MEASURES = ["accuracy", "calibration_error", "agreement", "cka", "weight_l2", "barrier", "corruptions", "sharpness"];
const FORMATS = ["timm", "hugging_face", "safetensors", "onnx", "site"];

/** What can be done with selected models at the command line. */
export function commands(zoo: string, { words, condition }: Choice, count: number): Command[] {
  const query = condition === null ? [] : [{ title: "query", variants: {}, words: ["query", zoo, selectOf(condition)] }];
  if (!words) return query;
  const choice = words;
  const one = (title: string, words: string[]) => ({ title, variants: {}, words });
  const by = (values: string[], words: (value: string) => string[]) => Object.fromEntries(values.map((value) => [value, words(value)]));
  return [
    { title: "measure", words: ["measure", zoo], variants: by(MEASURES, (measure) => [measure, ...choice]) },
    {
      title: "merge",
      words: ["merge", zoo, ...choice],
      variants: by(count === 2 ? [...MERGES, ...PAIR_MERGES] : MERGES, (method) => ["--method", method]),
    },
    one("compress", ["compress", zoo, ...choice, "--share", "2"]),
    { title: "study", words: ["study"], variants: by(["diversity", "lineage"], (study) => [study, zoo, ...choice]) },
    {
      title: "export",
      words: ["export", zoo, ...choice],
      variants: by(FORMATS, (format) => ["--exporter", format, "--out", `selection-${format}`]),
    },
    one("archive", ["archive", zoo, ...choice, "--out", "selection-zoo"]),
    ...query,
  ];
}

export function lineOf(command: Command, variant: string): string {
  return commandLine(["vitarium", ...command.words, ...(command.variants[variant] ?? [])]);
}
