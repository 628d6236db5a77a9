// What studies wrote into the zoo, read again whenever the zoo has changed.

import { explorer } from "../../lib/explorer.svelte";
import { read, type Studies } from "../../lib/zoo";

const NONE: Studies = { pages: [], lineages: [] };

class StudyList {
  current = $state.raw<Studies | null>(null);
  error = $state("");

  /** To be called when a view is set up that shows studies. */
  follow(): void {
    $effect(() => {
      void explorer.summary?.stamp; // another one once a study has been written
      read<Studies>("studies.json").then(
        (studies) => ([this.current, this.error] = [studies, ""]),
        (error: Error) => ([this.current, this.error] = [NONE, error.message]),
      );
    });
  }
}

export const studyList = new StudyList();
