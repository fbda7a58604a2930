//! The guest `once`, which says that an instance of it may be used three times.

#[path = "../../once/src/guest.rs"]
mod guest;

caxton_sdk::reusable!(3);

use guest::Once;

wasip2::http::proxy::export!(Once);
