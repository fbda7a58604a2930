//! The host as released, as a binary of this package, with the orders that tests need.

fn main() -> std::process::ExitCode {
    caxton::main_under_test()
}
