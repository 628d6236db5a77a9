// Selecting in a long list by mouse and keyboard, as mail programs and file managers do.

import { explorer } from "../../lib/explorer.svelte";

/** Rows between the last one that was selected or deselected and another become like that one. */
export class RowSelection {
  /** Position in the list of the row that keys act on. */
  active = $state(0);
  private anchor: number | null = null;

  toggle(position: number): void {
    this.active = position;
    this.anchor = explorer.rows[position];
    explorer.toggle(this.anchor);
  }

  /** Without a row to start from, it is as `toggle`. */
  extend(position: number): void {
    const start = this.anchor === null ? -1 : explorer.rows.indexOf(this.anchor);
    if (start < 0) return this.toggle(position);
    const isSelected = explorer.selected.has(this.anchor!);
    const selected = new Set(explorer.selected);
    for (const row of explorer.rows.slice(Math.min(start, position), Math.max(start, position) + 1)) {
      if (isSelected) selected.add(row);
      else selected.delete(row);
    }
    explorer.selected = selected;
    this.active = position;
  }

  /** Moves to another row; while it extends, that and the one that it comes from are selected. */
  move(position: number, isExtending: boolean): void {
    const to = Math.max(0, Math.min(explorer.rows.length - 1, position));
    if (isExtending) {
      const from = explorer.rows[this.active];
      if (!explorer.selected.has(from)) this.toggle(this.active);
      else this.anchor ??= from;
      this.extend(to);
    }
    this.active = to;
  }

  selectAll(isSelected: boolean): void {
    const selected = new Set(explorer.selected);
    for (const row of explorer.rows) isSelected ? selected.add(row) : selected.delete(row);
    explorer.selected = selected;
  }
}
