//! Reads a message that comes as a record: one side of the comparison that `contract.wit` describes.

wit_bindgen::generate!({
    path: ["../../../wit", "../contract"],
    world: "caxton:contract/by-record",
    generate_all,
});

struct ByRecord;

impl Guest for ByRecord {
    fn read_content(message: Message) -> u64 {
        sum(&message.content)
    }

    fn read_routing(message: Message) -> u64 {
        sum(&message.content)
            + sum(message.sender.as_bytes())
            + sum(message.conversation_id.as_bytes())
            + sum(message.id.as_bytes())
            + message.performative as u64
    }

    fn read_all(message: Message) -> u64 {
        let options = [message.ontology, message.protocol, message.reply_with, message.in_reply_to];
        let headers = message.headers.iter().map(|(name, value)| sum(name.as_bytes()) + sum(value.as_bytes()));
        sum(&message.content)
            + sum(message.id.as_bytes())
            + sum(message.sender.as_bytes())
            + sum(message.receiver.as_bytes())
            + sum(message.content_type.as_bytes())
            + sum(message.conversation_id.as_bytes())
            + options.iter().flatten().map(|text| sum(text.as_bytes())).sum::<u64>()
            + headers.sum::<u64>()
            + message.reply_by.unwrap_or(0)
            + message.sent_at
            + message.performative as u64
            + message.priority as u64
            + u64::from(message.attempt)
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

export!(ByRecord);
