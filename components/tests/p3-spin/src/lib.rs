//! The first example of Spin's documentation, with the path in its answer.

use spin_sdk::http::{IntoResponse, Request};
use spin_sdk::http_service;

#[http_service]
async fn hello(request: Request) -> impl IntoResponse {
    format!("Hello, Spin: {}", request.uri().path())
}
