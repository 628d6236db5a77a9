/** An empty canvas of this size in CSS pixels, as sharp as the screen. */
export function cleared(target: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const ratio = window.devicePixelRatio || 1;
  target.width = width * ratio;
  target.height = height * ratio;
  const context = target.getContext("2d")!;
  context.scale(ratio, ratio);
  return context;
}
