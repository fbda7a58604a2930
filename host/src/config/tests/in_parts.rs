//! A file that is read in parts means what it means as a whole, after any changes.

use super::*;
use crate::config::parts::read as read_in_parts;
use crate::mutation::{Case, Chance, mutate};

/// Changes of one file, one after the other.
const CHANGES: usize = 40;
/// Files that are changed.
const FILES: u64 = 60;

/// A file as a test changes it: pieces of text, most of them an agent each.
struct ChangedFile {
    pieces: Vec<String>,
    next: usize,
}

impl ChangedFile {
    fn new(chance: &mut Chance) -> Self {
        let mut file = Self { pieces: vec!["# a file\ncaxton = 1\n".to_owned()], next: 0 };
        (0..4 + chance.below(6)).for_each(|_| file.add(chance));
        file
    }

    fn add(&mut self, chance: &mut Chance) {
        let name = format!("a{}", self.next);
        self.next += 1;
        let at = 1 + chance.below(self.pieces.len());
        self.pieces.insert(at, agent(&name, chance));
    }

    fn text(&self) -> String {
        self.pieces.concat()
    }

    /// Makes one change, most of which leave the file valid.
    fn change(&mut self, chance: &mut Chance) {
        let count = self.pieces.len();
        let at = chance.below(count);
        let name = format!("a{}", chance.below(self.next + 1));
        match chance.below(17) {
            0 | 1 => self.add(chance),
            2 => drop(self.pieces.remove(at)),
            3 => self.pieces.swap(at, (at + 1) % count),
            4 => self.pieces[at].push_str("# a remark\n\n"),
            5 => self.pieces[at].push_str(&format!("[agents.{name}.limits]\nsends = {}\n", chance.below(9))),
            6 => self.pieces[at].push_str(&format!("[[agents.{name}.http]]\nroute = \"/{}\"\n", chance.below(20))),
            7 => self.pieces.push(format!("[defaults.limits]\nsends = {}\n", chance.below(9))),
            8 => self.pieces.insert(at, format!("[host]\ndrain = \"{}s\"\n", 1 + chance.below(9))),
            9 => self.pieces[0].push_str(&format!("agents.{name}.component = \"dotted.wasm\"\n")),
            10 => self.pieces[at] = self.pieces[at].replace("limits", "mailbox"),
            11 => self.pieces[at] = self.pieces[at].trim_end().to_owned(),
            12 => self.pieces[at] = self.pieces[at].replace('\n', "\r\n"),
            13 => self.pieces[at].push_str(&format!("config = {{ x = '''\n[agents.{name}]\n''' }}\n")),
            14 => self.pieces[at] = mutated(chance, &self.pieces[at]),
            _ => {
                let piece = &self.pieces[at];
                let changed = piece.replace("sends = 1", "sends = 2").replace("key = \"", "key = \"x");
                self.pieces[at] = if changed == *piece { agent(&name, chance) } else { changed };
            }
        }
        if self.pieces.is_empty() {
            *self = Self::new(chance);
        }
    }
}

/// Returns the tables of an agent.
fn agent(name: &str, chance: &mut Chance) -> String {
    let mut text = format!("[agents.{name}]\ncomponent = \"{name}.wasm\"\n");
    let number = chance.below(1_000);
    match chance.below(6) {
        0 => text.push_str(&format!("config = {{ key = \"{number}\", other = \"${{secret:one}}\" }}\n")),
        1 => text.push_str("limits = { sends = 1 }\nsnapshot = { save = \"commit\" }\n"),
        2 => text.push_str(&format!("allow.send = [\"a{}\"]\n", number % 9)),
        3 => text.push_str(&format!("capabilities = [\"c{}\"]\ninstances.reuse = 1\n", number % 3)),
        4 => text.push_str("allow.http = [\n  \"https://a.example/[x]\",\n]\n"),
        _ => {}
    }
    for _ in 0..chance.below(3) {
        text.push_str(&format!("[[agents.{name}.http]]\nroute = \"/{name}/{}\"\n", chance.below(50)));
    }
    text
}

fn mutated(chance: &mut Chance, text: &str) -> String {
    let bytes = mutate(chance, text.as_bytes(), &[b"[", b"]", b"\n", b"'''", b"[agents.a1]\n", b"\xef\xbb\xbf"]);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns what a host keeps of a file, from which it reads the next.
fn loaded(parsed: Parsed, text: &str) -> Loaded {
    let Parsed { desired, origins, warnings } = parsed;
    let report = ConfigErrors::new(Path::new("caxton.toml"), text.to_owned(), Vec::new());
    let places = named_files::places(&desired, &origins, &report);
    let parts = match origins {
        Origins::Parts(parts) => Some(parts),
        Origins::Whole(_) => None,
    };
    let (dir, text_digest) = (PathBuf::new(), Digest([0; 32]));
    Loaded { desired, dir, text_digest, file_errors: None, places, warnings, parts }
}

/// Counts of the reads of a test, which show that it has tested something.
#[derive(Debug, Default)]
struct Reads {
    in_parts: usize,
    with_errors: usize,
    agents_kept: usize,
}

/// Reads a text after an earlier one, and compares that with the text read as a whole.
fn compare(text: &str, variables: &[(&str, &str)], before: Option<&Loaded>, reads: &mut Reads) -> Option<Loaded> {
    let env = || env(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
    let flags = [("http.listen", "127.0.0.1:0".to_owned())];
    let operator = Operator::default();
    let whole = super::super::parse(text, variables::read(env()), &flags, &operator);
    let now = read(&text.into(), env(), &flags, &operator, before);
    match (whole, now) {
        (Ok(whole), Ok(now)) => {
            reads.in_parts += usize::from(matches!(now.origins, Origins::Parts(_)));
            let (whole, now) = (loaded(whole, text), loaded(now, text));
            assert_eq!(now.desired, whole.desired, "{text}");
            for (now, whole) in now.desired.agents.values().zip(whole.desired.agents.values()) {
                assert!(now.is_identical(whole), "{now:?}\n{whole:?}\n{text}");
            }
            assert_eq!(now.places, whole.places, "{text}");
            let kept =
                |(name, spec)| before.and_then(|b| b.desired.agents.get(name)).is_some_and(|b| Arc::ptr_eq(b, spec));
            reads.agents_kept += now.desired.agents.iter().filter(|found| kept(*found)).count();
            Some(now)
        }
        (Err(whole), Err(now)) => {
            reads.with_errors += 1;
            assert_eq!(now, whole, "{text}");
            None
        }
        (whole, now) => panic!("as a whole {:?}, in parts {:?}:\n{text}", whole.map(drop), now.map(drop)),
    }
}

#[test]
fn files_that_change_mean_the_same_in_parts() {
    let mut reads = Reads::default();
    for number in 0..FILES {
        let (_case, mut chance) = Case::begin("parts", number);
        let variables: &[(&str, &str)] = match number % 4 {
            0 => &[("CAXTON_AGENTS__A1__LIMITS__SENDS", "7"), ("CAXTON_SECRETS__FOLDER", ".")],
            1 => &[("CAXTON_DEFAULTS__LIMITS__SENDS", "8")],
            _ => &[("CAXTON_SECRETS__FOLDER", ".")],
        };
        let mut file = ChangedFile::new(&mut chance);
        let mut before = None;
        for _ in 0..CHANGES {
            let kept = file.pieces.clone();
            match compare(&file.text(), variables, before.as_ref(), &mut reads) {
                Some(loaded) => before = Some(loaded),
                // Mended some of the time, so that not all that follows is as wrong.
                None if chance.one_in(2) && before.is_some() => file = ChangedFile::new(&mut chance),
                None => {}
            }
            file.change(&mut chance);
            if file.text() == kept.concat() {
                file.add(&mut chance);
            }
        }
    }
    assert!(reads.in_parts > 300 && reads.with_errors > 300 && reads.agents_kept > 1_000, "{reads:?}");
}

#[test]
fn an_agent_that_has_not_changed_is_not_read_again() {
    let text = |sends: usize| {
        let agent = |n: usize| {
            let sends = if n == 50 { sends } else { n };
            format!(
                "[agents.a{n}]\ncomponent = \"a.wasm\"\nlimits.sends = {sends}\n[[agents.a{n}.http]]\nroute = \"/{n}\"\n"
            )
        };
        std::iter::once("caxton = 1\n".to_owned()).chain((0..100).map(agent)).collect::<String>()
    };
    let before = compare(&text(1), &[], None, &mut Reads::default()).unwrap();
    let mut reads = Reads::default();
    compare(&text(2), &[], Some(&before), &mut reads).unwrap();
    assert_eq!(reads.agents_kept, 99);
    // A table of all: each is checked again, and none has changed.
    let mut reads = Reads::default();
    compare(&format!("{}[host]\ndrain = \"1s\"\n", text(1)), &[], Some(&before), &mut reads).unwrap();
    assert_eq!(reads.agents_kept, 100);
    // The settings that they inherit have changed.
    let mut reads = Reads::default();
    compare(&format!("{}[defaults.limits]\ncpu = \"3s\"\n", text(1)), &[], Some(&before), &mut reads).unwrap();
    assert_eq!(reads.agents_kept, 0);
}

#[test]
fn agents_in_other_forms_are_read_as_a_whole() {
    let table = [
        ("caxton = 1\n[agents.a]\ncomponent = \"a\"\n[agents.b]\ncomponent = \"b\"\n", true),
        (
            "caxton = 1\n[agents.a]\ncomponent = \"a\"\n[agents.b]\ncomponent = \"b\"\n[agents.a.limits]\nsends = 1\n",
            false,
        ),
        ("caxton = 1\nagents.a.component = \"a\"\n[agents.b]\ncomponent = \"b\"\n", false),
        ("caxton = 1\n[agents]\na = { component = \"a\" }\n", false),
        ("caxton = 1\n[\"agents\".a]\ncomponent = \"a\"\n", false),
        ("caxton = 1\n[ agents . a ] # text\ncomponent = \"a\"\n", true),
        ("caxton = 1\n[agents.a]\ncomponent = \"a\"\nconfig.x = '''\n[agents.b]\n'''\n", true),
        ("caxton = 1\n", true),
    ];
    for (text, expected) in table {
        let found = read_in_parts(&text.into(), &[], &[], &Operator::default(), None);
        assert_eq!(found.is_some(), expected, "{text}");
        compare(text, &[], None, &mut Reads::default()).unwrap();
    }
}
