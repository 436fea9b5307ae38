import type { PayloadStore } from "../mod.ts";

/** A store in a folder that producers and hosts share. */
export function folderStore(folder: string): PayloadStore {
  return {
    async put(key, text) {
      const file = `${folder}/${crypto.randomUUID()}`;
      await Deno.writeTextFile(file, text);
      await Deno.rename(file, `${folder}/${key}`);
    },
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
