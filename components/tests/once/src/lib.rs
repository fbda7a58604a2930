//! An HTTP agent as written for a host that makes an instance for each request: it says how often its instance was used,
//! and leaves it as the path says.
//!
//! | path | effect |
//! |---|---|
//! | `/` | the number of requests that this instance had, this one included |
//! | `/silent` | returns without a response |
//! | `/abandon` | sets its response, writes some of its body and drops it |
//! | `/leak` | the same, and keeps the body |
//! | `/exit` | ends with `wasi:cli/exit` |
//! | `/trap` | panics |
//! | `/fetch` | asks `wasi:http/outgoing-handler` for `https://example.com/secret` |

mod guest;

use guest::Once;

wasip2::http::proxy::export!(Once);
