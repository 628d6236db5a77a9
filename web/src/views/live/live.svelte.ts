// Follows a zoo that grows: asks often while it does, and not at all when it does not.

import { explorer } from "../../lib/explorer.svelte";
import { read, type GrowthState } from "../../lib/zoo";

export interface Stage {
  name: string;
  models: number;
  epochs: number;
  epochs_done: number;
  existing: number;
  finished: number;
  diverged: number;
  failed: number;
  skipped: number;
  training: number;
}
interface OfModel {
  model: string;
  stage: string;
  label: string;
}
export interface TrainingModel extends OfModel {
  worker: number;
  process: string;
  phase: "set-up" | "train" | "score" | "write";
  since: number;
  epoch: number;
  epochs: number;
  step: number;
  steps: number;
}
export interface EndedModel extends OfModel {
  at: number;
  seconds: number;
  metrics: Record<string, number>;
}
export interface Problem extends OfModel {
  kind: "diverged" | "failed" | "skipped" | "retried";
  message: string;
  at: number;
}
export interface Growth {
  name: string;
  host: string;
  pid: number;
  command: string;
  folder: string;
  state: string;
  message: string;
  started: number;
  beat: number;
  seconds_left: number | null;
  epochs_per_second: number | null;
  images_per_second: number | null;
  workers: number;
  stages: Stage[];
  in_training: number;
  training: TrainingModel[];
  problems: Problem[];
  recent: EndedModel[];
  notes: { text: string; at: number }[];
}
export interface TrainingCurve {
  epochs: number[];
  metrics: Record<string, (number | null)[]>;
}
interface Live {
  state: GrowthState;
  growth: Growth | null;
  elapsed: number | null;
  quiet: number;
  curves: Record<string, TrainingCurve>;
  folder: string;
}

const [OPEN_MS, CLOSED_MS, SILENT_MS] = [1200, 2500, 5000];

/** Models that are in the zoo, trained to an end. */
export const inZoo = (stage: Stage) => stage.existing + stage.finished + stage.diverged;
export const ended = (stage: Stage) => inZoo(stage) + stage.failed + stage.skipped;
const sum = (stages: Stage[], of: (stage: Stage) => number) => stages.reduce((total, stage) => total + of(stage), 0);

class LiveGrowth {
  answer = $state.raw<Live | null>(null);
  /** Seconds since that answer, by this machine's clock. */
  age = $state(0);
  /** This page has seen it grow, so it says how that ended. */
  wasFollowed = $state(false);
  private answeredAt = 0;

  state = $derived(this.answer?.state ?? explorer.summary?.growth ?? "none");
  growth = $derived(this.answer?.growth ?? null);
  isGrowing = $derived(this.state === "growing" || this.state === "silent");
  models = $derived(sum(this.growth?.stages ?? [], (stage) => stage.models));
  inZoo = $derived(sum(this.growth?.stages ?? [], inZoo));
  problems = $derived(sum(this.growth?.stages ?? [], (stage) => stage.diverged + stage.failed + stage.skipped));
  /** Of all epochs. */
  share = $derived.by(() => {
    const stages = this.growth?.stages ?? [];
    const epochs = sum(stages, (stage) => stage.epochs);
    return epochs ? sum(stages, (stage) => stage.epochs_done) / epochs : 1;
  });
  elapsed = $derived((this.answer?.elapsed ?? 0) + (this.state === "growing" ? this.age : 0));
  left = $derived.by(() => {
    const left = this.growth?.seconds_left ?? null;
    return left === null || this.state !== "growing" ? null : Math.max(left - (this.answer?.quiet ?? 0) - this.age, 0);
  });

  /** For an effect: reads now, and again and again while the zoo grows. */
  follow(isOpen: boolean, state: GrowthState | undefined): () => void {
    let [isOver, timer] = [false, 0];
    const pause = state === "growing" ? (isOpen ? OPEN_MS : CLOSED_MS) : state === "silent" ? SILENT_MS : 0;
    const ask = async () => {
      if (!document.hidden) await this.read();
      if (pause && !isOver) timer = window.setTimeout(ask, pause);
    };
    void ask();
    const clock = pause ? window.setInterval(() => (this.age = this.sinceAnswer()), 1000) : 0;
    return () => {
      isOver = true;
      clearTimeout(timer);
      clearInterval(clock);
    };
  }

  private async read(): Promise<void> {
    try {
      const answer = await read<Live>("live.json");
      this.answeredAt = performance.now();
      this.answer = answer;
      this.age = 0;
      if (answer.state === "growing") this.wasFollowed = true;
      if (explorer.summary) explorer.summary.growth = answer.state;
    } catch {
      // the explorer, which asks too, says that the server is gone
    }
  }

  private sinceAnswer(): number {
    return (performance.now() - this.answeredAt) / 1000;
  }
}

export const live = new LiveGrowth();
