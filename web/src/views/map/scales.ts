// Axes of the map: linear, logarithmic, or in the same unit, and what of them a zoom shows.

import { scaleLinear, scaleLog, type ScaleContinuousNumeric } from "d3-scale";
import { extent } from "../../lib/colors";
import type { Column } from "../../lib/zoo";

const LOG_RATIO = 20; // of the largest to the smallest value of a factor, from which its axis is logarithmic
const MARGIN = 0.04; // of the values' range, on either side

export type Scale = ScaleContinuousNumeric<number, number>;
/** Ends of an axis: values, or their logarithms to base 10. */
export interface Domain {
  ends: [number, number];
  isLog: boolean;
}

export function domainOf(values: number[], column?: Column): Domain {
  const [low, high] = extent(values);
  const isLog = column?.group === "factor" && low > 0 && high / low >= LOG_RATIO;
  const [first, last] = isLog ? [Math.log10(low), Math.log10(high)] : [low, high];
  const margin = (last - first) * MARGIN;
  return { ends: [first - margin, last + margin], isLog };
}

/** Domains of which a unit is as long on both axes, for planes in which distances count. */
export function inSameUnit(domains: [Domain, Domain], pixels: [number, number]): [Domain, Domain] {
  const units = domains.map(({ ends }, n) => (ends[1] - ends[0]) / Math.max(1, pixels[n]));
  const unit = Math.max(...units);
  const widened = domains.map(({ ends, isLog }, n): Domain => {
    const [middle, half] = [(ends[0] + ends[1]) / 2, (unit * pixels[n]) / 2];
    return { ends: [middle - half, middle + half], isLog };
  });
  return [widened[0], widened[1]];
}

/** The scale onto pixels when zoomed in `zoom` times, its middle moved by a share of the domain. */
export function scaleOf({ ends: [a, b], isLog }: Domain, range: [number, number], zoom: number, shift: number): Scale {
  const middle = (a + b) / 2 + shift * (b - a);
  const half = (b - a) / 2 / zoom;
  const domain: [number, number] = [middle - half, middle + half];
  return isLog
    ? scaleLog(domain.map((exponent) => 10 ** exponent) as [number, number], range)
    : scaleLinear(domain, range);
}
