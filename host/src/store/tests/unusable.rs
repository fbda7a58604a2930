//! Tests of stores that cannot be used.

use super::*;

#[test]
fn a_second_host_is_refused_and_told_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(&folder, Durability::Os);
    let text = opened(folder.path(), &settings(Durability::Os)).err().unwrap().to_string();
    assert_eq!(
        text,
        format!(
            "the data folder {} is in use by another host (process {}); stop that one, or choose another folder with `--data DIR`",
            folder.path().display(),
            std::process::id()
        )
    );
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder, Durability::Os));
    let database = folder.path().join(DATABASE);
    Connection::open(&database).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let text = opened(folder.path(), &settings(Durability::Os)).err().unwrap().to_string();
    let known = super::schema::MIGRATIONS.len();
    assert!(
        text.contains(&format!("has format 99, made by a newer version; this one knows formats up to {known}")),
        "{text}"
    );
}

/// Returns the error of opening a store whose folder was changed while no host had it.
fn opened_after(change: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder, Durability::Fsync));
    change(&folder.path().join(DATABASE));
    let opened = opened(folder.path(), &settings(Durability::Fsync));
    opened.err().map(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR")).unwrap_or_default()
}

#[test]
fn a_store_that_cannot_be_used_says_which_and_what_to_do() {
    let damaged = "`caxton store check` says more; put a backup in its place with `caxton store restore FILE --force`, or move it away to begin anew";
    assert_eq!(
        opened_after(|database| fs::write(database, "a text, and not a database at all").unwrap()),
        format!("the store DIR/caxton.db is damaged (file is not a database): {damaged}")
    );
    assert_eq!(
        opened_after(|database| {
            let mut bytes = fs::read(database).unwrap();
            bytes[100..].fill(0x55);
            fs::write(database, bytes).unwrap();
        }),
        format!("the store DIR/caxton.db is damaged (database disk image is malformed): {damaged}")
    );
    assert_eq!(
        opened_after(|database| {
            fs::remove_file(database).unwrap();
            fs::create_dir(database).unwrap();
        }),
        "the store DIR/caxton.db cannot be opened for writing (unable to open database file: DIR/caxton.db): mend the permissions of it and its folder, or choose another with `--data DIR`"
    );
    let folder = tempfile::tempdir().unwrap();
    let missing = OfflineStore::open(folder.path()).err().unwrap().to_string();
    assert!(missing.starts_with("there is no store ") && missing.ends_with("say where it is with `--data DIR`"));
}
