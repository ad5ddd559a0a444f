/** Requests to the coordinator, and what it says against them. */

export type Fields = Readonly<Record<string, unknown>>;

export const fields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {});
export const number = (value: unknown): number => (typeof value === 'number' && Number.isFinite(value) ? value : 0);
export const text = (value: unknown): string => (typeof value === 'string' ? value : '');
export const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** A refusal as the coordinator words it. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    /** The field at fault, e.g. `origins[1]`. */
    readonly field: string,
  ) {
    super(detail);
  }
}

/** An answer that takes longer does not come: proofs and looks at pages take the longest. */
const ANSWER_MS_MAX = 60_000;

/** @throws {@link Refusal}, also where no answer comes. */
export async function send(path: string, { body, headers, ...init }: Omit<RequestInit, 'body'> & { readonly body?: unknown } = {}): Promise<Response> {
  const response = await fetch(path, {
    ...init,
    headers: { ...(headers as Record<string, string>), ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(ANSWER_MS_MAX),
  }).catch(() => {
    throw new Refusal(0, 'The coordinator does not answer.', '');
  });
  if (response.ok) return response;
  const problem = fields(await response.json().catch(() => undefined));
  throw new Refusal(response.status, text(problem.detail) || `The answer has status ${response.status}.`, text(problem.field));
}

/** An answer's fields; none of an empty one. */
export async function ask(path: string, init?: Parameters<typeof send>[1]): Promise<Fields> {
  const response = await send(path, init);
  return response.status === 204 ? {} : fields(await response.json().catch(() => undefined));
}

/** Requests under an API key. */
export class Keyed {
  constructor(private readonly key: string) {}

  #init(method: string, body: unknown): Parameters<typeof send>[1] {
    return { method, body, headers: { authorization: `Bearer ${this.key}` } };
  }

  send(method: string, path: string, body?: unknown): Promise<Response> {
    return send(path, this.#init(method, body));
  }

  ask(method: string, path: string, body?: unknown): Promise<Fields> {
    return ask(path, this.#init(method, body));
  }
}
