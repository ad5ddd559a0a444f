/** The public routes of the coordinator, read defensively: a missing number shows as zero, never as a crash. */

export type Curve = ReadonlyArray<readonly [x: number, y: number]>;

export interface Evaluation {
  readonly epoch: number;
  readonly loss: number;
  readonly accuracy: number | undefined;
}

/** Accepted work of a job on one kind of hardware. */
export interface Work {
  /** `cpu` or `gpu`. */
  readonly backend: string;
  readonly tasks: number;
  readonly flops: number;
}

export interface Job {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly epoch: number;
  readonly epochs: number;
  readonly round: number;
  readonly rounds: number;
  readonly imagesPerS: number;
  readonly contributors: number;
  readonly work: readonly Work[];
  /** Training loss by round. */
  readonly loss: Curve;
  readonly evaluation: readonly Evaluation[];
}

/** How many committed results came to what. */
export interface Outcomes {
  readonly accepted: number;
  readonly notNeeded: number;
  readonly late: number;
  readonly withdrawn: number;
  /** Differed from what the coordinator computed, was not what had been committed to, or came from somebody of whom that is known. */
  readonly refused: number;
}

export interface Stats {
  readonly contributors: number;
  readonly workers: number;
  readonly tasksAccepted: number;
  readonly tasksPerS: number;
  readonly flopsDone: number;
  readonly outcomes: Outcomes;
  /** Part of the honest work, as far as is known, that earned nothing. */
  readonly unpaidShare: number;
  readonly jobs: readonly Job[];
}

export interface Node {
  readonly session: string;
  readonly device: string;
  /** What it computes on: `cpu` or `gpu`. */
  readonly backend: string;
  readonly share: number;
  readonly workers: number;
  readonly flopsPerS: number;
  readonly tasksAccepted: number;
  readonly state: string;
  readonly joinedSAgo: number;
}

type Fields = Readonly<Record<string, unknown>>;

function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** A name, or the name in an object such as `{"class": "cpu"}`. */
function label(value: unknown): string {
  return typeof value === 'string' ? value : text(fields(value).class);
}

function curve(value: unknown): Curve {
  return list(value).flatMap((point) => {
    const [x, y] = list(point);
    // A loss that is no number any more ends the curve instead of bending its scale.
    return typeof x === 'number' && typeof y === 'number' && Number.isFinite(y) ? [[x, y] as const] : [];
  });
}

function evaluation(value: unknown): Evaluation {
  const [epoch, loss, accuracy] = list(value);
  return { epoch: number(epoch), loss: number(loss), accuracy: typeof accuracy === 'number' ? accuracy : undefined };
}

function work(value: unknown): Work {
  const from = fields(value);
  return { backend: text(from.backend), tasks: number(from.tasks), flops: number(from.flops) };
}

function job(value: unknown): Job {
  const from = fields(value);
  return {
    id: text(from.id),
    name: text(from.name),
    state: text(from.state),
    epoch: number(from.epoch),
    epochs: number(from.epochs),
    round: number(from.round),
    rounds: number(from.rounds),
    imagesPerS: number(from.images_per_s),
    contributors: number(from.contributors),
    work: list(from.work).map(work),
    loss: curve(from.loss),
    evaluation: list(from.evaluation).map(evaluation),
  };
}

function outcomes(value: unknown): Outcomes {
  const from = fields(value);
  return {
    accepted: number(from.accepted),
    notNeeded: number(from.not_needed),
    late: number(from.late),
    withdrawn: number(from.withdrawn),
    refused: number(from.wrong) + number(from.broken_commitment) + number(from.void),
  };
}

export function readStats(value: unknown): Stats {
  const from = fields(value);
  return {
    contributors: number(from.contributors),
    workers: number(from.workers),
    tasksAccepted: number(from.tasks_accepted),
    tasksPerS: number(from.tasks_per_s),
    flopsDone: number(from.flops_done),
    outcomes: outcomes(from.outcomes),
    unpaidShare: number(from.unpaid_share),
    jobs: list(from.jobs).map(job),
  };
}

export function readNodes(value: unknown): readonly Node[] {
  return list(fields(value).nodes).map((entry) => {
    const from = fields(entry);
    return {
      session: text(from.session),
      device: label(from.device),
      backend: text(from.numeric),
      share: number(from.share),
      workers: number(from.workers),
      flopsPerS: number(from.flops_per_s),
      tasksAccepted: number(from.tasks_accepted),
      state: text(from.state),
      joinedSAgo: number(from.joined_s_ago),
    };
  });
}

/** An answer that takes longer is not live any more. */
const ANSWER_MS_MAX = 5_000;

async function get(path: string): Promise<unknown> {
  const response = await fetch(path, {
    headers: { accept: 'application/json' },
    signal: AbortSignal.timeout(ANSWER_MS_MAX),
  });
  if (!response.ok) throw new Error(`${path}: status ${response.status}`);
  return response.json();
}

export interface Snapshot {
  readonly stats: Stats;
  readonly nodes: readonly Node[];
}

export async function snapshot(): Promise<Snapshot> {
  const [stats, nodes] = await Promise.all([get('/v1/stats'), get('/v1/nodes')]);
  return { stats: readStats(stats), nodes: readNodes(nodes) };
}
