//! From a prediction's inputs to a generation.

use pinion_cog_compat::inputs::render_template;
use pinion_cog_compat::{GenerationInputs, InputError};
use serde_json::json;

use crate::ipc::{GenerationParams, Prompt};

/// What the engine is to do for these inputs. `seed` is used where they name none.
pub fn generation(
    inputs: GenerationInputs,
    seed: u64,
) -> Result<(Prompt, GenerationParams), InputError> {
    let system = inputs.system_prompt.as_deref().filter(|text| !text.is_empty());
    let prompt = if let Some(template) = &inputs.prompt_template {
        Prompt::Text(render_template(template, &inputs.prompt, system.unwrap_or_default())?)
    } else {
        let system = system.map(|text| json!({ "role": "system", "content": text }));
        let user = json!({ "role": "user", "content": inputs.prompt });
        let messages: Vec<_> = system.into_iter().chain([user]).collect();
        Prompt::Chat {
            messages: serde_json::Value::Array(messages).to_string(),
            tools: None,
            template_kwargs: None,
            plain_fallback: true,
        }
    };
    let params = GenerationParams {
        max_tokens: Some(inputs.max_tokens),
        min_tokens: inputs.min_tokens,
        temperature: Some(inputs.temperature as f32),
        top_p: Some(inputs.top_p as f32),
        top_k: Some(inputs.top_k.unwrap_or(0)),
        seed: inputs.seed.unwrap_or(seed),
        repetition_penalty: inputs.repetition_penalty as f32,
        presence_penalty: inputs.presence_penalty as f32,
        frequency_penalty: inputs.frequency_penalty as f32,
        stop: inputs.stop,
        ..GenerationParams::default()
    };
    Ok((prompt, params))
}

/// A seed for a request that names none. Random enough that two requests differ; not a secret.
pub fn random_seed() -> u64 {
    let id = uuid::Uuid::now_v7().as_u64_pair();
    // JSON numbers are exact up to 2^53.
    (id.0.rotate_left(32) ^ id.1) >> 11
}
