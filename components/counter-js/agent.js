// Counts in its state: {"by": 3} adds 3, an empty content adds 1, and the answer is {"count": SUM}.
// Gives the same answers as `counter` and `counter-python`.

import state from "caxton:agent/state@0.1.0";

export const handler = {
  handle(message) {
    const by = readStep(message.content);
    const count = increment("count", by);
    if (!Number.isSafeInteger(count)) {
      // The failure takes the increment back.
      throw failure("rejected", "the sum would be too large");
    }
    return {
      performative: "inform",
      content: encode(JSON.stringify({ count })),
      contentType: "application/json",
      ontology: null,
      replyWith: null,
      replyBy: null,
      headers: [],
    };
  },
};

function readStep(content) {
  if (content.length === 0) return 1;
  let step;
  try {
    step = JSON.parse(decode(content));
  } catch {
    step = null;
  }
  const isObject = typeof step === "object" && step !== null && !Array.isArray(step);
  const isKnown = isObject && Object.keys(step).every((key) => key === "by");
  const by = isKnown && "by" in step ? step.by : 1;
  if (!isKnown || !Number.isSafeInteger(by)) {
    throw failure("rejected", 'the content must be empty or {"by": INTEGER}');
  }
  return by;
}

function increment(key, by) {
  try {
    return state.increment(key, by);
  } catch (error) {
    const cause = error.tag === "unavailable" ? "unavailable" : "fault";
    throw failure(cause, `state does not count: ${error.tag ?? error}`);
  }
}

function failure(cause, reason) {
  return { cause, reason, retryAfterMs: null };
}

// QuickJS has neither TextDecoder nor TextEncoder.
function decode(bytes) {
  let escaped = "";
  for (const byte of bytes) escaped += "%" + byte.toString(16).padStart(2, "0");
  return decodeURIComponent(escaped);
}

function encode(text) {
  const bytes = unescape(encodeURIComponent(text));
  return Uint8Array.from(bytes, (byte) => byte.charCodeAt(0));
}
