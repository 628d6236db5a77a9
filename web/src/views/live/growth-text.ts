// How far a growing zoo is, in words.

import { counted, type GrowthState } from "../../lib/zoo";
import type { Growth, TrainingModel } from "./live.svelte";

/** 90 -> "1 min 30 s". */
export function duration(seconds: number): string {
  const wholeSeconds = Math.max(Math.round(seconds), 0);
  const units: [number, string, number, string][] = [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ];
  for (const [size, unit, smaller, smallerUnit] of units) {
    if (wholeSeconds < size) continue;
    const rest = Math.floor((wholeSeconds % size) / smaller);
    return `${Math.floor(wholeSeconds / size)} ${unit}${rest ? ` ${rest} ${smallerUnit}` : ""}`;
  }
  return `${wholeSeconds} s`;
}

/** Estimates are rounded, so that they do not claim to know better. */
export function about(seconds: number): string {
  if (seconds < 90) return `about ${Math.max(Math.round(seconds), 1)} s left`;
  if (seconds < 90 * 60) return `about ${Math.round(seconds / 60)} min left`;
  if (seconds < 10 * 3600) return `about ${(seconds / 3600).toFixed(1)} h left`;
  if (seconds < 48 * 3600) return `about ${Math.round(seconds / 3600)} h left`;
  return `about ${(seconds / 86400).toFixed(1)} days left`;
}

export function rate(perSecond: number, noun: string): string {
  const [value, unit] = perSecond >= 1 ? [perSecond, "s"] : perSecond * 60 >= 1 ? [perSecond * 60, "min"] : [perSecond * 3600, "h"];
  const rounded = value >= 100 ? Math.round(value) : Number(value.toPrecision(2));
  return `${rounded.toLocaleString("en")} ${noun} / ${unit}`;
}

export function phase(training: TrainingModel): string {
  const { phase, epoch, epochs, step, steps } = training;
  if (phase === "set-up") return "setting up";
  if (phase === "write") return "writing the last epoch";
  if (phase === "score") return epoch ? `epoch ${epoch} of ${epochs}: scoring` : "scoring before training";
  return `epoch ${epoch} of ${epochs}${step ? `, step ${step.toLocaleString("en")} of ${steps.toLocaleString("en")}` : ""}`;
}

/** Of the training of a model. */
export function share(training: TrainingModel): number {
  const { epoch, epochs, step, steps, phase } = training;
  if (phase === "write") return 1;
  const within = phase === "score" && epoch ? 1 : steps ? step / steps : 0;
  return epochs ? Math.min((Math.max(epoch - 1, 0) + (epoch ? within : 0)) / epochs, 1) : 0;
}

/** A time in seconds since 1970, as the reader's clock shows it. */
export function moment(time: number): string {
  return new Date(time * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

/** The heading of a state: "Growing demo". */
export function heading(state: GrowthState, growth: Growth): string {
  const { name } = growth;
  if (state === "growing") return `Growing ${name}`;
  if (state === "silent") return `No sign of life: ${name}`;
  if (state === "interrupted") return `Interrupted: ${name}`;
  if (state === "broken") return `Ended by an error: ${name}`;
  return `Finished: ${name}`;
}

/** How it ended, in a sentence. */
export function ending(state: GrowthState, growth: Growth, elapsed: number, inZoo: number, models: number): string {
  const counts = `${inZoo.toLocaleString("en")} of ${counted(models, "model")}`;
  if (state === "finished") {
    const trained = growth.stages.reduce((total, stage) => total + stage.finished + stage.diverged, 0);
    return trained ? `Finished in ${duration(elapsed)}: ${counts}` : `Nothing was left to do: ${counted(models, "model")}`;
  }
  if (state === "incomplete") return `Finished in ${duration(elapsed)}: ${counts}; the others failed or were skipped`;
  if (state === "broken") return `Ended by an error after ${duration(elapsed)} with ${counts}: ${growth.message}`;
  const cause = growth.state === "growing" ? "Its process ended without a word" : "Interrupted";
  return `${cause} after ${duration(elapsed)} with ${counts}`;
}
