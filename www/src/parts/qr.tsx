/** A text as a QR code. It is made here: what it says, such as a right to collect, is nobody else's to see. */

// uqr is small, has no dependencies, and draws nothing itself: it answers the squares.
import { encode } from 'uqr';

/** Squares of white around it, as the standard asks for. */
const BORDER = 4;

/** The squares, of which dark ones are true; `undefined` where the text is too long for any code. */
export function squares(text: string): boolean[][] | undefined {
  try {
    return encode(text, { ecc: 'L', border: BORDER }).data;
  } catch {
    return undefined;
  }
}

/** Dark on white in any colour scheme: many readers know no other. */
export function Qr({ text, what }: { readonly text: string; readonly what: string }) {
  const rows = squares(text);
  if (!rows) return <p class="quiet">This is too much for a QR code: copy the link.</p>;
  const path = rows.flatMap((row, y) => row.flatMap((isDark, x) => (isDark ? [`M${x} ${y}h1v1h-1z`] : []))).join('');
  return (
    <svg class="qr" viewBox={`0 0 ${rows.length} ${rows.length}`} role="img" aria-label={what} shape-rendering="crispEdges">
      <rect width="100%" height="100%" fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}
