// Draws the map: axes, lines through epochs, points.

import type { Scale } from "./scales";
import { formatNumber } from "../../lib/zoo";

const LABEL_WIDTH = 56; // pixels
const LABEL_HEIGHT = 16;
/** First digits of a logarithmic axis's ticks, those that are labeled first before others. */
const LOG_ORDER = "132546789";
const TICK_WIDTH = 110;
const TICK_HEIGHT = 60;

export interface Frame {
  left: number;
  right: number;
  top: number;
  bottom: number;
}
export interface Axis {
  scale: Scale;
  label: string;
  /** Planes in which only distances count have a frame in place of numbers and lines. */
  hasNumbers: boolean;
}

export function drawAxes(c: CanvasRenderingContext2D, style: CSSStyleDeclaration, x: Axis, y: Axis, frame: Frame): void {
  const { left, right, top, bottom } = frame;
  c.font = `12px ${style.fontFamily}`;
  c.strokeStyle = style.getPropertyValue("--line");
  c.fillStyle = style.color;
  c.textAlign = "center";
  if (!x.hasNumbers) c.strokeRect(left, top, right - left, bottom - top);
  const xTicks = x.hasNumbers ? x.scale.ticks(Math.max(2, (right - left) / TICK_WIDTH)) : [];
  for (const tick of xTicks) line(c, x.scale(tick), top, x.scale(tick), bottom);
  for (const tick of labeled(xTicks, x.scale, LABEL_WIDTH)) c.fillText(formatNumber(tick), x.scale(tick), bottom + 16);
  c.fillText(x.label, (left + right) / 2, bottom + 36);
  c.textAlign = "right";
  const yTicks = y.hasNumbers ? y.scale.ticks(Math.max(2, (bottom - top) / TICK_HEIGHT)) : [];
  for (const tick of yTicks) line(c, left, y.scale(tick), right, y.scale(tick));
  for (const tick of labeled(yTicks, y.scale, LABEL_HEIGHT)) c.fillText(formatNumber(tick), left - 6, y.scale(tick) + 4);
  c.save();
  c.translate(14, (top + bottom) / 2);
  c.rotate(-Math.PI / 2);
  c.textAlign = "center";
  c.fillText(y.label, 0, 0);
  c.restore();
}

/** Ticks with room for a number; of a logarithmic axis, powers of ten come first. */
function labeled(ticks: number[], scale: Scale, room: number): number[] {
  const rank = (tick: number) => LOG_ORDER.indexOf(tick.toExponential()[0]);
  const ordered = "base" in scale ? [...ticks].sort((a, b) => rank(a) - rank(b)) : ticks;
  const chosen: number[] = [];
  for (const tick of ordered) {
    if (chosen.every((other) => Math.abs(scale(other) - scale(tick)) >= room)) chosen.push(tick);
  }
  return chosen;
}

export function drawPath(c: CanvasRenderingContext2D, points: [number, number][]): void {
  c.beginPath();
  points.forEach(([x, y], n) => (n ? c.lineTo(x, y) : c.moveTo(x, y)));
  c.stroke();
}

function line(c: CanvasRenderingContext2D, x1: number, y1: number, x2: number, y2: number): void {
  drawPath(c, [
    [x1, y1],
    [x2, y2],
  ]);
}
