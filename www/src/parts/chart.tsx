/** A small line chart, drawn by uPlot in the page's own colours. */

import { useEffect, useRef } from 'preact/hooks';
import UPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import type { Curve } from '../api.ts';

export interface ChartProps {
  readonly title: string;
  readonly points: Curve;
  readonly height?: number;
  /** Values as text, for the axis and the caption. */
  readonly format: (value: number) => string;
  /** Positions as text. */
  readonly formatX?: (x: number) => string;
  /** Ends of the x axis; without them it follows the points. */
  readonly xRange?: readonly [number, number];
  /** Lower bound of the y axis; without one it follows the values. */
  readonly yMin?: number;
  /** Points are few and worth a mark each. */
  readonly marks?: boolean;
}

/** Room for the labels of the y axis and of the x axis, in pixels. */
const Y_AXIS_WIDTH = 52;
const X_AXIS_HEIGHT = 26;
const HEIGHT = 160;
/** Positions are rounds, epochs or seconds: whole numbers. */
const X_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6];

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function options(props: ChartProps, width: number): UPlot.Options {
  const axis = { stroke: colour('--quiet'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false } };
  const { yMin, xRange } = props;
  const formatX = props.formatX ?? String;
  return {
    width,
    height: props.height ?? HEIGHT,
    padding: [6, 14, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: {
      x: { time: false, ...(xRange ? { range: [...xRange] } : {}) },
      y: {
        range: (_plot, low, high) => {
          const bottom = yMin ?? low;
          // A flat line needs a range too.
          const top = high > bottom ? high : bottom + 1;
          const spare = (top - bottom) * 0.08;
          return [yMin ?? bottom - spare, top + spare];
        },
      },
    },
    series: [
      {},
      {
        label: props.title,
        stroke: colour('--accent'),
        width: 2,
        points: { show: props.marks ?? false, size: 6, fill: colour('--accent') },
      },
    ],
    axes: [
      { ...axis, size: X_AXIS_HEIGHT, space: 72, incrs: X_STEPS, values: (_plot, ticks) => ticks.map(formatX) },
      { ...axis, size: Y_AXIS_WIDTH, space: 36, values: (_plot, ticks) => ticks.map(props.format) },
    ],
  };
}

function columns(points: Curve): UPlot.AlignedData {
  return [points.map(([x]) => x), points.map(([, y]) => y)];
}

export function Chart(props: ChartProps) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<UPlot>(null);
  const latest = useRef(props);
  latest.current = props;

  useEffect(() => {
    const element = holder.current;
    if (!element) return undefined;
    const draw = (): void => {
      plot.current?.destroy();
      plot.current = new UPlot(options(latest.current, element.clientWidth), columns(latest.current.points), element);
    };
    const resize = new ResizeObserver(() => {
      const height = latest.current.height ?? HEIGHT;
      plot.current?.setSize({ width: element.clientWidth, height });
    });
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    draw();
    resize.observe(element);
    scheme.addEventListener('change', draw);
    return () => {
      resize.disconnect();
      scheme.removeEventListener('change', draw);
      plot.current?.destroy();
    };
  }, []);

  useEffect(() => plot.current?.setData(columns(props.points)), [props.points]);

  const last = props.points.at(-1);
  const summary = last ? `${props.title}: now ${props.format(last[1])}` : props.title;
  return (
    <figure class="chart">
      <figcaption>
        <span>{props.title}</span>
        <b>{last ? props.format(last[1]) : '–'}</b>
      </figcaption>
      <div ref={holder} role="img" aria-label={summary} />
    </figure>
  );
}
