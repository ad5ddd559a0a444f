import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectTo } from '../src/earn/collecting.ts';
import type { Wallet } from '../src/earn/wallet.ts';
import { References } from '../src/parts/till.ts';

const WALLET = { key: 'ab'.repeat(32), sign: async () => 'cd'.repeat(64) } as unknown as Wallet;
const ENTERED = { account: 'requester:7', key: 'rk_test_x', id: 'key_7' };
const CLAIMS = [{ statement: '{}', signature: 'ef' }];

interface Coordinator {
  readonly book: 'test' | 'live';
  /** Nano-USD that the wallet has then. */
  readonly live: number;
  readonly test: number;
  /** Of which a request is refused. */
  readonly refused?: string;
}

/** Answers as a coordinator does; what was asked is in the list that it gives. */
function serve({ book, live, test, refused }: Coordinator): string[] {
  const asked: string[] = [];
  globalThis.fetch = (async (path: string, init: RequestInit = {}) => {
    const method = init.method ?? 'GET';
    asked.push(`${method} ${path}${path.endsWith('/links') ? ` ${JSON.parse(JSON.parse(String(init.body)).statement).nonce}` : ''}`);
    const answer = (body: unknown, status = 200) => new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json' } });
    if (path === refused) return answer({ detail: 'not today', status: 503 }, 503);
    if (path === '/v1/account') return answer({ account: 'requester:7', book });
    if (path.endsWith('/challenge')) return answer({ nonce: '00', origin: 'https://raven.example' });
    if (path === `/v1/contributors/${WALLET.key}`) return answer({ earnings: { live: { available_nano_usd: live }, test: { pending_nano_usd: test } } });
    return answer({});
  }) as typeof fetch;
  return asked;
}

const nonces = (asked: readonly string[]): string[] => asked.filter((each) => each.startsWith('POST /v1/account/links')).map((each) => each.slice(-32));

test('what is of the other kind of money than the account is said to stay behind', async () => {
  serve({ book: 'test', live: 5, test: 0 });
  const news = await collectTo(ENTERED, WALLET, CLAIMS, new References());
  assert.equal(news.good, false);
  assert.match(news.text, /All play money that this wallet earns goes to the account requester:7\./);
  assert.match(news.text, /the real money that this wallet has stays in this browser until you move it to an account of real money/);
  for (const [book, live, test] of [['live', 5, 0], ['test', 0, 5], ['live', 0, 0]] as const) {
    serve({ book, live, test });
    const { good, text } = await collectTo(ENTERED, WALLET, CLAIMS, new References());
    assert.equal(good, true, text);
    assert.ok(text.includes(`All ${book === 'live' ? 'real' : 'play'} money that this wallet earns goes to`), text);
  }
});

test('nothing is collected before the account is known, and its key is given back', async () => {
  const asked = serve({ book: 'test', live: 5, test: 0, refused: '/v1/account' });
  await assert.rejects(collectTo(ENTERED, WALLET, CLAIMS, new References()), { detail: 'not today' });
  assert.deepEqual(asked, ['GET /v1/account', 'DELETE /v1/keys/key_7']);
});

test('a second link is another statement, and one whose answer never came the same', async () => {
  const references = new References();
  const failed = serve({ book: 'test', live: 0, test: 0, refused: '/v1/account/links' });
  const news = await collectTo(ENTERED, WALLET, CLAIMS, references);
  assert.match(news.text, /They do not go to the account: not today/);
  const asked = serve({ book: 'test', live: 0, test: 0 });
  await collectTo(ENTERED, WALLET, CLAIMS, references);
  await collectTo(ENTERED, WALLET, CLAIMS, references);
  const [first, second] = nonces(asked);
  assert.equal(first, nonces(failed)[0]);
  assert.notEqual(second, first);
});
