// Lines for a shell and for SQL. Names and tags come from zoos of anyone: they are always quoted.

const PLAIN = /^[\w@%+=:,./-]+$/;
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/** An argument for sh, bash and zsh; with characters that cannot be seen, written as `$'\xNN'`, for bash and zsh. */
export function quoted(argument: string): string {
  if (PLAIN.test(argument)) return argument;
  if (!UNSEEN.test(argument)) return `'${argument.replaceAll("'", "'\\''")}'`;
  const bytes = (char: string) => [...new TextEncoder().encode(char)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`);
  const escaped = [...argument].map((char) => (UNSEEN.test(char) || "'\\".includes(char) ? bytes(char).join("") : char));
  return `$'${escaped.join("")}'`;
}

export function commandLine(words: string[]): string {
  return words.map(quoted).join(" ");
}

/** A text in SQL. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
