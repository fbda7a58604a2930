//! A file read in parts: each agent by itself, and one whose text has not changed not at all.
//!
//! The tree of a whole file takes a hundred times its text, and making it takes as long for one changed agent as for all.
//! The text is cut at the headers of its tables instead. Each piece is a document of its own, which is parsed, checked
//! and dropped before the next; a piece that an earlier file had keeps the meaning that it had there.
//!
//! A file has parts if every agent is declared under headers such as `[agents.NAME]` that follow each other, and nothing
//! in it is wrong. Any other is read as a whole (`syntax`), which also knows all errors with their places.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use caxton_control::config::{CheckedShared, Entry, Node, Operator, Source, Value};
use caxton_control::{AgentSpec, Desired};
use toml_edit::Document;
use toml_parser::lexer::TokenKind;

use super::layers;
use super::toml::{document, in_file};
use super::variables::Setting;

/// The table of the agents.
const AGENTS: &str = "agents";

/// A file that was read in parts.
#[derive(Debug)]
pub(crate) struct FileParts {
    text: Arc<str>,
    /// The tree of all other tables, merged with the variables and flags.
    rest: Node,
    shared: CheckedShared,
    /// The agents in the order of the file.
    agents: Vec<AgentPart>,
}

/// An agent of a file with its piece of the text.
#[derive(Debug)]
struct AgentPart {
    text: Range<usize>,
    spec: Arc<AgentSpec>,
    /// The places of the keys that refer to files, from the beginning of the piece.
    places: Box<[(String, Source)]>,
    /// Set if variables set some of its keys, so that the text alone does not tell its meaning.
    is_overridden: bool,
}

impl FileParts {
    /// Returns the tree of the tables beside the agents.
    pub(super) fn rest(&self) -> &Node {
        &self.rest
    }

    /// Returns the tree of an agent's piece of the text, and the beginning of the piece.
    pub(super) fn agent_tree(&self, name: &str) -> Option<(Node, usize)> {
        let part = self.agents.iter().find(|part| part.spec.name.as_str() == name)?;
        Some((tree(self.piece(part))?, part.text.start))
    }

    /// Returns the paths of the keys of agents that refer to files, with their places.
    pub(super) fn agent_places(&self) -> impl Iterator<Item = (String, Source)> {
        self.agents.iter().flat_map(|part| {
            part.places.iter().map(|(key, place)| {
                (format!("{AGENTS}.{}.{key}", part.spec.name), moved(place, |byte| byte + part.text.start))
            })
        })
    }

    fn piece(&self, part: &AgentPart) -> &str {
        &self.text[part.text.clone()]
    }
}

/// Reads a text in parts. `before` has the parts and the meaning of an earlier file. Returns `None` if it cannot be read so,
/// or has any error.
pub(super) fn read(
    text: &Arc<str>,
    settings: &[Setting],
    flags: &[(&str, String)],
    operator: &Operator,
    before: Option<(Option<&FileParts>, &Desired)>,
) -> Option<(Desired, FileParts)> {
    let (earlier, known) = before.unzip();
    let earlier = earlier.flatten();
    let pieces = cut(text, earlier)?;
    let (of_agents, of_rest): (Vec<&Setting>, Vec<&Setting>) =
        settings.iter().partition(|setting| setting.path.first().is_some_and(|key| key == AGENTS));
    let rest = rest(text, &pieces.rest)?;
    // Agents in another form, such as `agents = { … }`.
    if rest.get(AGENTS).is_some() {
        return None;
    }
    let rest = layers::merge(rest, of_rest.into_iter().cloned().collect(), flags);
    let shared = CheckedShared::check(&rest, operator)?;
    let earlier = earlier.filter(|earlier| earlier.shared.is_same(&shared));
    let mut overrides: BTreeMap<&str, Vec<Setting>> = BTreeMap::new();
    for setting in of_agents {
        overrides.entry(setting.path.get(1)?).or_default().push(setting.clone());
    }
    let mut agents = Vec::with_capacity(pieces.agents.len());
    for piece in pieces.agents {
        let over = overrides.remove(piece.name);
        let same = piece.earlier.filter(|_| over.is_none()).and_then(|at| earlier?.agents.get(at));
        agents.push(match same.filter(|same| !same.is_overridden) {
            Some(same) => AgentPart {
                text: piece.text,
                spec: Arc::clone(&same.spec),
                places: same.places.clone(),
                is_overridden: false,
            },
            None => agent(text, piece, over, &shared, known)?,
        });
    }
    // Variables may declare an agent that the file does not have.
    if !overrides.is_empty() {
        return None;
    }
    let by_name: BTreeMap<_, _> = agents.iter().map(|part| (part.spec.name.clone(), Arc::clone(&part.spec))).collect();
    // The pieces of one agent do not follow each other.
    if by_name.len() != agents.len() {
        return None;
    }
    let desired = shared.desired(by_name, known)?;
    Some((desired, FileParts { text: Arc::clone(text), rest, shared, agents }))
}

/// Reads the piece of one agent.
fn agent(
    text: &str,
    piece: Piece<'_>,
    over: Option<Vec<Setting>>,
    shared: &CheckedShared,
    known: Option<&Desired>,
) -> Option<AgentPart> {
    let is_overridden = over.is_some();
    let tree = layers::merge(tree(&text[piece.text.clone()])?, over.unwrap_or_default(), &[]);
    let entry = tree.get(AGENTS)?.node.get(piece.name)?;
    let spec = shared.agent(piece.name, entry)?;
    let places = agent_keys(&spec).map(|path| (path.join("."), place(entry, path))).collect();
    // One value for what has not changed, so that later comparisons end at the pointer.
    let same = known.and_then(|known| known.agents.get(piece.name)).filter(|known| known.is_identical(&spec));
    let spec = same.map_or_else(|| Arc::new(spec), Arc::clone);
    Some(AgentPart { text: piece.text, spec, places, is_overridden })
}

/// Returns the keys of an agent that refer to files or secrets, each below its table.
pub(super) fn agent_keys(spec: &AgentSpec) -> impl Iterator<Item = [&str; 2]> {
    let refers = spec.config.iter().filter(|(_, text)| text.contains("${"));
    let calls = (!spec.allow.http.is_empty()).then_some(["allow", "http"]);
    refers.map(|(key, _)| ["config", key.as_str()]).chain(calls)
}

/// Returns the place of the value at a path below an agent.
fn place(entry: &Entry, path: [&str; 2]) -> Source {
    let found = path.iter().try_fold(&entry.node, |node, key| Some(&node.get(key)?.node));
    found.map_or(Source::Default, |node| node.source.clone())
}

/// Returns the tree of the tables beside the agents, located in the whole text.
fn rest(text: &str, ranges: &[Range<usize>]) -> Option<Node> {
    let joined: String = ranges.iter().map(|range| &text[range.clone()]).collect();
    let mut tree = tree(&joined)?;
    // The ranges with their begin in the joined text.
    let mut begin = 0;
    let mut joints: Vec<(usize, usize)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        joints.push((begin, range.start));
        begin += range.len();
    }
    let to_file = |byte: usize| {
        let at = joints.partition_point(|(begin, _)| *begin <= byte).saturating_sub(1);
        joints.get(at).map_or(byte, |(begin, start)| start + (byte - begin))
    };
    locate(&mut tree, &to_file);
    Some(tree)
}

/// Parses a piece of the text.
fn tree(text: &str) -> Option<Node> {
    Document::parse(text).ok().map(|read| document(&read))
}

/// Moves all places of a tree.
fn locate(node: &mut Node, to_file: &impl Fn(usize) -> usize) {
    node.source = moved(&node.source, to_file);
    match &mut node.value {
        Value::Table(table) => {
            for entry in table.values_mut() {
                entry.key = moved(&entry.key, to_file);
                locate(&mut entry.node, to_file);
            }
        }
        Value::Array(nodes) => nodes.iter_mut().for_each(|node| locate(node, to_file)),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

/// Returns a place with its first byte moved.
pub(super) fn moved(source: &Source, to_file: impl Fn(usize) -> usize) -> Source {
    match source {
        Source::File { start, end } => {
            let begin = to_file(*start);
            // From the start, since the end of a range may be the start of the next.
            in_file(begin..begin + end.saturating_sub(*start))
        }
        Source::Variable(_) | Source::Flag(_) | Source::Place(_) | Source::Default => source.clone(),
    }
}

/// A text cut into its pieces.
#[derive(Debug, Default)]
struct Pieces<'t> {
    agents: Vec<Piece<'t>>,
    rest: Vec<Range<usize>>,
}

/// The tables of one agent that follow each other.
#[derive(Debug)]
struct Piece<'t> {
    name: &'t str,
    text: Range<usize>,
    /// The agent of an earlier file that has the same text, by its position there.
    earlier: Option<usize>,
}

impl<'t> Pieces<'t> {
    fn push(&mut self, name: Option<&'t str>, text: Range<usize>, hints: &Hints<'_>, whole: &str) {
        match name {
            Some(name) => {
                let earlier = hints.last.filter(|at| hints.piece(*at) == Some(&whole[text.clone()]));
                self.agents.push(Piece { name, text, earlier });
            }
            None => self.rest.push(text),
        }
    }
}

/// Cuts a text where a table of another agent begins, or of none. Each piece is a document of its own, and together they
/// are the text. Returns `None` if agents are declared in another form than under headers.
fn cut<'t>(text: &'t str, earlier: Option<&FileParts>) -> Option<Pieces<'t>> {
    let mut pieces = Pieces::default();
    let mut hints = Hints { earlier, next: 0, last: None, by_name: None };
    let (mut name, mut start) = (None, 0);
    let mut at = 0;
    'text: loop {
        let mut tokens = toml_parser::Source::new(&text[at..]).lex();
        // The brackets that are open, and the beginning of a line that no bracket encloses.
        let (mut depth, mut is_fresh) = (0_usize, true);
        for token in &mut tokens {
            match token.kind() {
                TokenKind::Whitespace | TokenKind::Comment => {}
                TokenKind::Newline => is_fresh |= depth == 0,
                TokenKind::LeftSquareBracket if is_fresh => {
                    let header = at + token.span().start();
                    let of = agent_of(&text[header..])?;
                    if of.is_none() || of != name {
                        pieces.push(name, start..header, &hints, text);
                        (name, start) = (of, header);
                        // What an earlier file had is known to its end.
                        if let Some(length) = of.and_then(|of| hints.find(of, &text[header..])) {
                            at = header + length;
                            continue 'text;
                        }
                    }
                    (depth, is_fresh) = (1, false);
                }
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => (depth, is_fresh) = (depth + 1, false),
                TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                    (depth, is_fresh) = (depth.checked_sub(1)?, false);
                }
                TokenKind::Eof => break 'text,
                TokenKind::Dot | TokenKind::Equals | TokenKind::Comma | TokenKind::Atom => is_fresh = false,
                TokenKind::LiteralString | TokenKind::BasicString => is_fresh = false,
                TokenKind::MlLiteralString | TokenKind::MlBasicString => is_fresh = false,
            }
        }
        break;
    }
    pieces.push(name, start..text.len(), &hints, text);
    Some(pieces)
}

/// Returns the agent of the header that a text begins with; the inner `None` is a table of no agent. Returns `None` for a
/// header that leaves open which agents it declares.
fn agent_of(text: &str) -> Option<Option<&str>> {
    let mut tokens = toml_parser::Source::new(text).lex().filter(|token| token.kind() != TokenKind::Whitespace);
    let mut next = || tokens.next();
    next()?;
    let mut key = next()?;
    if key.kind() == TokenKind::LeftSquareBracket {
        key = next()?;
    }
    let name = |token: toml_parser::lexer::Token| {
        // A quoted key may be any, in other letters than it seems.
        (token.kind() == TokenKind::Atom).then(|| &text[token.span().start()..token.span().end()])
    };
    if name(key)? != AGENTS {
        return Some(None);
    }
    next().filter(|dot| dot.kind() == TokenKind::Dot)?;
    next().and_then(name).map(Some)
}

/// The pieces of an earlier file, most of which follow each other in a later one too.
struct Hints<'a> {
    earlier: Option<&'a FileParts>,
    /// The piece that is expected next.
    next: usize,
    /// The piece that was found last.
    last: Option<usize>,
    by_name: Option<HashMap<&'a str, usize>>,
}

impl Hints<'_> {
    fn piece(&self, at: usize) -> Option<&str> {
        let earlier = self.earlier?;
        earlier.agents.get(at).map(|part| earlier.piece(part))
    }

    /// Looks for a piece that a text begins with. Returns its length, from which on the text is unknown.
    fn find(&mut self, name: &str, text: &str) -> Option<usize> {
        self.last = None;
        let earlier = self.earlier?;
        // Without its line feed the last line may go on in the new text.
        let fits = |piece: &&str| piece.ends_with('\n') && text.starts_with(*piece);
        // The one after it too: a piece that has changed is skipped with the next.
        let expected = [self.next, self.next + 1].into_iter().find(|at| self.piece(*at).filter(fits).is_some());
        let found = expected.or_else(|| {
            let by_name = self.by_name.get_or_insert_with(|| {
                earlier.agents.iter().enumerate().map(|(at, part)| (part.spec.name.as_str(), at)).collect()
            });
            by_name.get(name).copied()
        })?;
        self.next = found + 1;
        let length = self.piece(found).filter(fits).map(str::len)?;
        self.last = Some(found);
        Some(length)
    }
}
