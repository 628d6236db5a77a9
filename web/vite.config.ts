import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

const PAGE = "../src/vitarium/page/built";
const SOURCES = ["index.html", "package-lock.json", "package.json", "public", "src", "vite.config.ts"];

/** Writes down what the page was built from, so that a test sees when the source is newer. */
function sourceDigest(): Plugin {
  const filesIn = (path: string): string[] =>
    path.includes(".") ? [path] : readdirSync(path).flatMap((name) => filesIn(join(path, name)));
  return {
    name: "source-digest",
    writeBundle() {
      const digest = createHash("sha256");
      for (const path of SOURCES.flatMap(filesIn).sort()) {
        digest.update(`${path}\n`).update(readFileSync(path));
      }
      writeFileSync(join(PAGE, "source.sha256"), `${digest.digest("hex")}\n`);
    },
  };
}

// Relative addresses, so that the page works below any path; names without hashes, so that a
// rebuilt page differs from the committed one only where its source does.
export default defineConfig({
  base: "./",
  plugins: [svelte(), sourceDigest()],
  build: {
    outDir: PAGE,
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      output: {
        entryFileNames: "explorer.js",
        chunkFileNames: "[name].js",
        assetFileNames: "explorer[extname]",
      },
    },
  },
});
