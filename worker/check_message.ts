import { decodeError } from "./decode_error.ts";
import type { FromWorker, Thrown } from "./protocol.ts";

/**
 * Whether a worker's message is well-formed. A task may have replaced the platform's functions with which errors are taken apart and lists
 * are made: that must only end its worker, and nothing on the caller's side.
 */
export function isReadable(message: FromWorker): boolean {
  try {
    switch (message.type) {
      case "threw":
      case "failed":
        return isThrown(message.thrown);
      case "closed":
      case "dying":
        return message.thrown === undefined || isThrown(message.thrown);
      case "items": {
        const { values, thrown } = message;
        const isList = values === undefined || Array.isArray(values) || ArrayBuffer.isView(values);
        return isList && Array.isArray(thrown) && (thrown.length === 0 || [...thrown].every(([, error]) => isThrown(error)));
      }
      case "loaded":
        return [...message.exports].every((each) => [each.name, each.functionName, each.text].every((text) => typeof text === "string"));
      default:
        return true;
    }
  } catch {
    return false;
  }
}

/** Whether it can be put together again; throws if it cannot. */
function isThrown(thrown: Thrown): boolean {
  decodeError(thrown, () => undefined);
  return true;
}
