import { defineConfig } from 'vite';

/** Where a coordinator listens while this is developed with `npx vite`. */
const COORDINATOR = process.env.RAVEN_COORDINATOR ?? 'http://127.0.0.1:8080';

export default defineConfig({
  base: '/',
  build: {
    target: 'es2022',
    outDir: 'dist',
    // Everything stays in files: the page's policy allows neither inline scripts nor data URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: ['index.html', 'partner.html', 'earn.html', 'sign-up.html', 'account.html'] },
  },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  server: { proxy: { '/v1': COORDINATOR } },
});
