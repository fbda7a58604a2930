//! A terminal, as far as this program uses one.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs a command with a terminal of this size as its standard output. Returns its exit code and the bytes written.
pub(crate) fn run_on_terminal(mut command: Command, columns: u16, rows: u16) -> (i32, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("the system has terminals");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal can be had");
    tcsetwinsize(&master, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 })
        .expect("it has a size");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let path = std::ffi::OsStr::from_bytes(name.as_bytes());
    let slave: OwnedFd = OpenOptions::new().read(true).write(true).open(path).expect("it can be opened").into();
    let mut child = command.env("TERM", "xterm").stdout(slave).spawn().expect("the program starts");
    // The command holds the other end of the terminal open as well, and reading would never end.
    drop(command);
    let (mut output, mut master) = (Vec::new(), File::from(master));
    let mut buffer = [0; 4_096];
    // Reading fails once the other end is closed everywhere.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        output.extend_from_slice(&buffer[..length]);
    }
    let status = child.wait().expect("the program can be waited for");
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&output).into_owned())
}

/// Returns the lines that a terminal of this size finally shows for this output. Supports line breaks, moving the
/// cursor up, and clearing everything after it.
pub fn screen(written: &str, columns: usize, rows: usize) -> Vec<String> {
    let mut lines = vec![vec![' '; columns]; rows];
    let (mut row, mut column) = (0, 0);
    let mut characters = written.chars().peekable();
    let scroll = |lines: &mut Vec<Vec<char>>, row: &mut usize| {
        *row += 1;
        if *row == rows {
            lines.remove(0);
            lines.push(vec![' '; columns]);
            *row -= 1;
        }
    };
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => scroll(&mut lines, &mut row),
            '\x1b' => {
                assert_eq!(characters.next(), Some('['), "no other codes are known");
                let mut number = String::new();
                while let Some(digit) = characters.next_if(|next| next.is_ascii_digit() || *next == ';') {
                    number.push(digit);
                }
                match characters.next() {
                    Some('A') => row = row.saturating_sub(number.parse().unwrap_or(1)),
                    Some('J') => {
                        lines[row][column..].fill(' ');
                        lines[row + 1..].iter_mut().for_each(|line| line.fill(' '));
                    }
                    Some('m') => {}
                    other => panic!("the code {number}{other:?} is not known"),
                }
            }
            character => {
                // Terminals wrap only when the next character comes.
                if column == columns {
                    column = 0;
                    scroll(&mut lines, &mut row);
                }
                lines[row][column] = character;
                column += 1;
            }
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect()
}
