//! Queries that note the contents in pieces of rows that leave, to be removed.

// Through indexes of the rows that name a content, which are mostly empty.
/// Notes the contents of handled messages that leave.
pub(super) const UNPLACE_HANDLED: &str = "INSERT INTO unplaced SELECT placed FROM message INDEXED BY message_placed
     WHERE placed IS NOT NULL AND seq <= ?1 AND EXISTS (SELECT 1 FROM ack WHERE ack.seq = message.seq)";
/// Notes the content of a timer that leaves.
pub(super) const UNPLACE_TIMER: &str =
    "INSERT INTO unplaced SELECT placed FROM timer WHERE seq = ?1 AND placed IS NOT NULL";
/// Notes the content of a dead letter that leaves.
pub(super) const UNPLACE_DEAD: &str =
    "INSERT INTO unplaced SELECT placed FROM dead WHERE seq = ?1 AND placed IS NOT NULL";
/// Notes the values of an agent whose state leaves.
pub(super) const UNPLACE_STATE: &str = "INSERT INTO unplaced SELECT placed FROM state INDEXED BY state_placed
     WHERE agent = ?1 AND placed IS NOT NULL";
