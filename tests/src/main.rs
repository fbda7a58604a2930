//! The host as users have it, under a name of its own, with what tests do to it beside.

fn main() -> std::process::ExitCode {
    caxton::main_under_test()
}
