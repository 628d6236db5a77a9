// Going from point to point with the arrow keys.

interface Point {
  x: number;
  y: number;
}

const DIRECTIONS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
const SIDEWAYS = 2; // how much farther a point seems for each pixel beside the direction

/** Where an arrow key leads from a point: the nearest one in that direction; null for other keys, and at the end. */
export function neighbor<P extends Point>(points: P[], from: Point, key: string): P | null {
  const direction = DIRECTIONS[key];
  if (!direction) return null;
  const [dx, dy] = direction;
  let [nearest, distance] = [null as P | null, Infinity];
  for (const point of points) {
    const [x, y] = [point.x - from.x, point.y - from.y];
    const ahead = x * dx + y * dy;
    const far = ahead + SIDEWAYS * Math.abs(x * dy - y * dx);
    if (ahead > 0.5 && far < distance) [nearest, distance] = [point, far];
  }
  return nearest;
}
