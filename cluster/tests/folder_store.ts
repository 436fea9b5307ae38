import type { PayloadStore } from "../mod.ts";

/** A store in a folder that producers and hosts share. */
export function folderStore(folder: string): PayloadStore {
  return {
    put: (key, text) => Deno.writeTextFile(`${folder}/${key}`, text),
    get: (key) => Deno.readTextFile(`${folder}/${key}`),
    delete: async (key) => {
      try {
        await Deno.remove(`${folder}/${key}`);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    },
  };
}
