// What the reader looks at. All of it stands in the address, so that it can be linked to.

import type { EmbeddingChoices } from "./embedding.svelte";
import { read, send, sortRows, type Column, type ModelsTable, type Summary } from "./zoo";

export const VIEWS = ["table", "map", "factors", "tree", "compare", "studies", "live"] as const;
export type View = (typeof VIEWS)[number];

const LIST_SEPARATOR = "~";
const REFRESH_MS = 3000;
/** At least so many times as long as an answer takes, it is not asked for again: a zoo may be large. */
const REST = 8;

/** Names as one text, which their own separators do not divide. */
function listed(names: readonly string[]): string {
  return names.map((name) => name.replace(/[%~]/g, (sign) => (sign === "%" ? "%25" : "%7E"))).join(LIST_SEPARATOR);
}

function decodeName(name: string): string {
  return name.replace(/%25|%7E/g, decodeURIComponent);
}

class Explorer {
  summary = $state<Summary | null>(null);
  table = $state.raw<ModelsTable | null>(null);
  error = $state("");
  /** Why nothing new is heard of the zoo; "": what is shown is so. */
  lost = $state("");

  view = $state<View>("table");
  model = $state("");
  search = $state("");
  where = $state("");
  sort = $state("");
  shown = $state<string[]>([]);
  selected = $state.raw<ReadonlySet<number>>(new Set());
  x = $state("");
  y = $state("");
  color = $state("");
  size = $state("");
  shape = $state("");
  /** What positions on the map come from; "": the two columns `x` and `y`. */
  source = $state("");
  method = $state("pca");
  /** Whether the map shows a model's epochs, joined by a line. */
  hasEpochs = $state(false);
  embeddingChoices = $state.raw<EmbeddingChoices | null>(null);
  /** The study whose page is open. */
  study = $state("");
  /** The recovered lineage that is shown beside the true one. */
  recovered = $state("");

  /** The models that fulfill the condition, by their ids: rows are others once the zoo has changed. */
  private whereIds = $state.raw<readonly string[] | null>(null);
  whereError = $state("");

  columns = $derived(new Map(this.table?.columns.map((column) => [column.name, column]) ?? []));
  rowOf = $derived(new Map(this.table?.ids.map((id, row) => [id, row]) ?? []));
  whereRows = $derived(this.whereIds && new Set(this.whereIds.flatMap((id) => this.rowOf.get(id) ?? [])));
  /** Rows that fulfill search and condition, sorted. */
  rows = $derived.by(() => {
    if (!this.table) return [];
    const matches = this.matcher(this.table, this.search.trim().toLowerCase());
    const conditional = this.whereRows;
    let rows = this.table.ids.map((_, row) => row);
    if (conditional) rows = rows.filter((row) => conditional.has(row));
    rows = rows.filter(matches);
    const column = this.columns.get(this.sort.replace(/^-/, ""));
    return column ? sortRows(rows, column, this.sort.startsWith("-")) : rows;
  });
  numbers = $derived(this.table?.columns.filter((column) => column.type === "number") ?? []);

  async open(): Promise<void> {
    try {
      [this.summary, this.table] = await Promise.all([
        read<Summary>("zoo.json"),
        read<ModelsTable>("models.json"),
      ]);
      document.title = `${this.summary.name} · vitarium`;
      this.readAddress();
      if (this.summary.stamp) setTimeout(() => void this.keepUp(), REFRESH_MS);
    } catch (error) {
      this.error = (error as Error).message;
    }
  }

  private async keepUp(): Promise<void> {
    const requestedAt = performance.now();
    await this.refresh();
    setTimeout(() => void this.keepUp(), Math.max(REFRESH_MS, REST * (performance.now() - requestedAt)));
  }

  /** Follows a zoo that grows, or is measured or changed elsewhere, while the page is looked at. */
  async refresh(): Promise<void> {
    if (document.hidden) return;
    try {
      const summary = await read<Summary>("zoo.json");
      this.lost = "";
      if (this.summary && summary.growth !== this.summary.growth) this.summary.growth = summary.growth;
      if (summary.stamp === this.summary?.stamp) return;
      const table = await read<ModelsTable>("models.json");
      const selected = this.selectedIds();
      const areUsual = this.shown.join() === this.table!.shown.join();
      [this.summary, this.table] = [summary, table];
      this.selected = new Set(selected.flatMap((id) => this.rowOf.get(id) ?? []));
      if (areUsual) this.shown = table.shown;
      if (this.where) await this.filter(this.where);
    } catch (error) {
      const isSilent = error instanceof TypeError; // as `fetch` says that there was no answer
      this.lost = isSilent ? "vitarium explore does not answer" : (error as Error).message;
    }
  }

  /** Read once: what the map can take positions from, beside columns. */
  async readEmbeddingChoices(): Promise<void> {
    if (this.embeddingChoices || !this.summary?.embeddings) return;
    this.embeddingChoices = await read<EmbeddingChoices>("embeddings.json");
  }

  column(name: string): Column | undefined {
    return this.columns.get(name);
  }

  async filter(where: string): Promise<void> {
    this.where = where;
    this.whereError = "";
    if (!where.trim()) {
      this.whereIds = null;
      return;
    }
    try {
      const token = this.summary?.token ?? "";
      const { ids } = await send<{ ids: string[] }>("query", { where }, token);
      if (this.where === where) this.whereIds = ids;
    } catch (error) {
      if (this.where !== where) return;
      this.whereIds = null;
      this.whereError = (error as Error).message;
    }
  }

  toggle(row: number): void {
    const selected = new Set(this.selected);
    if (!selected.delete(row)) selected.add(row);
    this.selected = selected;
  }

  selectedIds(): string[] {
    return [...this.selected].sort((a, b) => a - b).map((row) => this.table!.ids[row]);
  }

  sortBy(name: string): void {
    this.sort = this.sort === `-${name}` ? name : this.sort === name ? "" : `-${name}`;
  }

  private matcher(table: ModelsTable, words: string): (row: number) => boolean {
    if (!words) return () => true;
    const searched = words.split(/\s+/);
    const texts = table.columns.flatMap((column) =>
      column.type === "text" ? [{ codes: column.codes, levels: column.levels.map((l) => l.toLowerCase()) }] : [],
    );
    return (row) =>
      searched.every(
        (word) =>
          table.ids[row].startsWith(word) ||
          texts.some(({ codes, levels }) => codes[row] >= 0 && levels[codes[row]].includes(word)),
      );
  }

  /** The address's part after `#`, from which `readAddress` brings all of this back. */
  address(): string {
    const parts = new URLSearchParams();
    const put = (name: string, value: string, usual = "") => value !== usual && parts.set(name, value);
    put("view", this.view, "table");
    put("model", this.model);
    put("search", this.search);
    put("where", this.where);
    put("sort", this.sort);
    put("columns", listed(this.shown), listed(this.table?.shown ?? []));
    put("x", this.x, this.usualX());
    put("y", this.y, this.usualY());
    put("color", this.color, "stage");
    put("size", this.size);
    put("shape", this.shape);
    put("from", this.source);
    put("method", this.method, "pca");
    put("epochs", this.hasEpochs ? "1" : "");
    put("study", this.study);
    put("recovered", this.recovered);
    put("selected", this.selectedIds().map((id) => id.slice(0, 12)).join(LIST_SEPARATOR));
    return parts.toString();
  }

  readAddress(): void {
    if (!this.table) return;
    const parts = new URLSearchParams(location.hash.slice(1));
    const known = (name: string) => this.columns.has(name);
    const view = parts.get("view") as View;
    const isShown = VIEWS.includes(view) && (view !== "live" || this.summary?.growth);
    this.view = isShown ? view : "table";
    this.model = parts.get("model") ?? "";
    this.search = parts.get("search") ?? "";
    this.sort = parts.get("sort") ?? "";
    this.shown = parts.get("columns")?.split(LIST_SEPARATOR).map(decodeName).filter(known) ?? this.table.shown;
    this.x = parts.get("x") ?? this.usualX();
    this.y = parts.get("y") ?? this.usualY();
    this.color = parts.get("color") ?? "stage";
    this.size = parts.get("size") ?? "";
    this.shape = parts.get("shape") ?? "";
    this.source = this.summary?.embeddings ? (parts.get("from") ?? "") : "";
    this.method = parts.get("method") ?? "pca";
    this.hasEpochs = parts.get("epochs") === "1";
    this.study = parts.get("study") ?? "";
    this.recovered = parts.get("recovered") ?? "";
    const ids = parts.get("selected")?.split(LIST_SEPARATOR) ?? [];
    this.selected = new Set(ids.flatMap((id) => this.rowOf.get(id) ?? []));
    const where = parts.get("where") ?? "";
    if (where !== this.where) void this.filter(where);
  }

  /** The first factor that is a number, such as the learning rate. */
  private usualX(): string {
    const factors = this.numbers.filter(({ group, name }) => group === "factor" && this.table!.shown.includes(name));
    return (factors[0] ?? this.numbers[0])?.name ?? "";
  }

  private usualY(): string {
    return this.columns.has("after") ? "after" : (this.numbers[0]?.name ?? "");
  }
}

export const explorer = new Explorer();
