// Where models lie by their weights or predictions: read when the map asks, and again as the zoo grows.

import { untrack } from "svelte";
import { read } from "./zoo";

export interface EmbeddingChoices {
  sources: { name: string; title: string; what: string }[];
  methods: { name: string; title: string }[];
  /** Whether all kept epochs of a model can be shown. */
  trajectories: boolean;
}
/** Checkpoints as points of a plane, column by column, in the order of models and epochs. */
export interface Embedding {
  method: string;
  ids: string[];
  /** Of each point, the number of its model in `ids`. */
  models: number[];
  epochs: number[];
  x: number[];
  y: number[];
  explained: number[] | null;
  left_out: { reason: string; models: number }[];
}
export interface Remaining {
  remaining: number;
  total: number;
}
interface Refused {
  refused: string;
}

/** Answers that are computed for some seconds at a time: asks until one is complete. */
export class Computed<T extends object> {
  answer = $state.raw<T | null>(null);
  remaining = $state.raw<Remaining | null>(null);
  error = $state("");
  isReading = $state(false);

  private address = "";
  private stamp: string | undefined;
  private controller = new AbortController();

  /** What is at an address, as of a stamp of the zoo. A newer one waits until the last is answered. */
  follow(address: string, stamp: string | undefined): void {
    untrack(() => this.change(address, stamp)); // called by effects, which shall not run again for it
  }

  private change(address: string, stamp: string | undefined): void {
    const isOther = address !== this.address;
    if (!isOther && stamp === this.stamp) return;
    this.stamp = stamp;
    if (!isOther && this.isReading) return;
    if (isOther) this.answer = null;
    this.address = address;
    this.controller.abort();
    this.controller = new AbortController();
    if (address) void this.ask(address, this.controller.signal);
  }

  stop(): void {
    this.follow("", undefined);
  }

  private async ask(address: string, signal: AbortSignal): Promise<void> {
    [this.isReading, this.error, this.remaining] = [true, "", null];
    try {
      for (;;) {
        const stamp = this.stamp;
        const answer = await read<T | Remaining | Refused>(address, signal);
        if (signal.aborted) return;
        if ("remaining" in answer) {
          this.remaining = answer;
        } else if ("refused" in answer) {
          [this.error, this.answer] = [answer.refused, null];
          break;
        } else {
          [this.answer, this.error] = [answer, ""];
          if (stamp === this.stamp) break;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      this.error = (error as Error).message;
    }
    [this.isReading, this.remaining] = [false, null];
  }
}
