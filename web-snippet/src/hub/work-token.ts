/** The coordinator's word for what this visitor did on the site, which its page may pass on to the site's server. */

/** @returns `undefined` where the coordinator gives none, and throws where it can't be reached. */
export async function fetchToken(
  { origin, fetch }: { readonly origin: string; readonly fetch: typeof globalThis.fetch },
  grant: string,
): Promise<string | undefined> {
  const response = await fetch(`${origin}/v1/work-tokens`, { method: 'POST', headers: { authorization: `Bearer ${grant}` }, credentials: 'omit' });
  const { token } = response.ok ? ((await response.json()) as { token?: unknown }) : {};
  return typeof token === 'string' ? token : undefined;
}
