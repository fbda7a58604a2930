// Answers each message with its own content.

export const handler = {
  handle(message) {
    return {
      performative: "inform",
      content: message.content,
      contentType: message.contentType,
      ontology: null,
      replyWith: null,
      replyBy: null,
      headers: [],
    };
  },
};
