//! What suits which messages, as it was measured: no request changes it.

use axum::Json;
use axum::extract::State;
use tidegate_client::abi::Guidance;

use crate::serve::app::App;

/// `GET /v1/guidance`
pub async fn guidance(State(app): State<App>) -> Json<Guidance> {
    Json(Guidance::clone(&app.guidance))
}
