//! Chat templates against HF transformers' output, and against templates that mean harm.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;
use crate::metadata::NamedTemplate;

const GOLDEN: &str = include_str!("../../oracle/templates.json");

fn text(template: &str) -> TemplateText {
    TemplateText::single(TemplateOrigin::TokenizerConfig, template)
}

fn compile(template: &str) -> ChatTemplate {
    ChatTemplate::compile(&text(template), SpecialTokens::default()).expect("the template is valid")
}

fn input(messages: &Json) -> RenderInput<'_> {
    RenderInput {
        messages,
        tools: None,
        extra: None,
        add_generation_prompt: true,
        unix_seconds: 1_721_952_000,
    }
}

fn render(template: &str, messages: &Json) -> Result<String, TemplateError> {
    compile(template).render(&input(messages))
}

fn one_user() -> Json {
    json!([{"role": "user", "content": "Hi"}])
}

fn golden_template(name: &str) -> String {
    let file = format!("{}/oracle/templates/{name}.jinja", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(file).expect("every golden case has its template")
}

fn special_tokens(golden: &Json) -> SpecialTokens {
    let token = |name: &str| golden["special"][name].as_str().map(str::to_owned);
    SpecialTokens {
        bos: token("bos_token"),
        eos: token("eos_token"),
        pad: token("pad_token"),
        unk: token("unk_token"),
    }
}

#[test]
fn every_template_writes_what_transformers_writes() {
    let golden: Json = serde_json::from_str(GOLDEN).expect("the golden file is JSON");
    let special = special_tokens(&golden);
    let mut wrong = Vec::new();
    let cases = golden["cases"].as_array().expect("a list of cases");
    for case in cases {
        let name = case["template"].as_str().expect("a name");
        let template = ChatTemplate::compile(&text(&golden_template(name)), special.clone())
            .expect("real templates compile");
        let rendered = template.render(&RenderInput {
            messages: &case["messages"],
            tools: Some(&case["tools"]),
            extra: case["extra"].as_object(),
            add_generation_prompt: case["add_generation_prompt"] == json!(true),
            unix_seconds: golden["unix_seconds"].as_i64().expect("a time"),
        });
        let right = match (&rendered, case["error"].as_str(), case["raised"] == json!(true)) {
            (Ok(text), None, _) => case["rendered"] == json!(text),
            (Err(TemplateError::Raised { message }), Some(error), true) => message == error,
            (Err(TemplateError::Render { .. }), Some(_), false) => true,
            _ => false,
        };
        if !right {
            let expected = case.get("rendered").or(case.get("error"));
            wrong.push(format!("{name} {}: {rendered:?}, expected {expected:?}", case["case"]));
        }
    }
    assert!(cases.len() > 150, "the golden file is whole");
    let (count, shown) = (wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(wrong.is_empty(), "{count} of {}:\n{}", cases.len(), shown.join("\n"));
}

#[test]
fn arguments_sent_as_text_are_given_to_the_template_as_an_object() {
    let call = |arguments: Json| {
        json!([{"role": "user", "content": "?"},
            {"role": "assistant", "content": null, "tool_calls":
                [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]}])
    };
    let template = golden_template("qwen25");
    let object = render(&template, &call(json!({"a": [1, 2.5]}))).expect("renders");
    assert_eq!(render(&template, &call(json!("{\"a\": [1, 2.5]}"))).expect("renders"), object);
    assert!(object.contains(r#""arguments": {"a": [1, 2.5]}"#), "{object}");
}

#[test]
fn text_parts_are_joined_for_a_template_that_knows_only_strings() {
    let messages = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
    let rendered = render(&golden_template("chatml"), &messages).expect("renders");
    assert_eq!(rendered, "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn a_string_is_wrapped_for_a_template_that_knows_only_parts() {
    let template =
        "{% for m in messages %}{% for p in m['content'] %}{{ p.text }}{% endfor %}{% endfor %}";
    assert_eq!(render(template, &one_user()).expect("renders"), "Hi");
}

#[test]
fn an_image_part_is_refused_with_the_index_of_its_message() {
    let messages = json!([{"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    let error = render(&golden_template("chatml"), &messages).expect_err("no images");
    assert!(matches!(&error, TemplateError::Message { index: 1, .. }), "{error}");
    assert!(error.to_string().contains("image_url"), "{error}");
}

#[test]
fn messages_of_a_wrong_shape_are_refused() {
    for messages in
        [json!({}), json!("x"), json!([1]), json!([{}]), json!([{"role": "user", "content": 1}])]
    {
        let error = render(&golden_template("chatml"), &messages).expect_err("not messages");
        assert_eq!(error.code(), "message_invalid", "{messages}: {error}");
    }
}

#[test]
fn tools_select_the_template_that_is_called_tool_use() {
    let named =
        |name: &str, template: &str| NamedTemplate { name: name.into(), template: template.into() };
    let templates = vec![named("default", "plain"), named("tool_use", "tools")];
    let text = TemplateText { origin: TemplateOrigin::TokenizerConfig, templates };
    let template = ChatTemplate::compile(&text, SpecialTokens::default()).expect("valid");
    let (messages, tools) = (one_user(), json!([{"type": "function"}]));
    assert_eq!(template.render(&input(&messages)).expect("renders"), "plain");
    let with_tools = RenderInput { tools: Some(&tools), ..input(&messages) };
    assert_eq!(template.render(&with_tools).expect("renders"), "tools");
}

#[test]
fn extra_variables_cannot_replace_the_messages_or_the_tokens() {
    let special = SpecialTokens { bos: Some("<s>".into()), ..SpecialTokens::default() };
    let template =
        ChatTemplate::compile(&text("{{ bos_token }}{{ messages|length }}{{ more }}"), special)
            .expect("valid");
    let extra: Map<String, Json> = [("bos_token", "x"), ("messages", "xyz"), ("more", "!")]
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .into_iter()
        .collect();
    let messages = one_user();
    let rendered = template.render(&RenderInput { extra: Some(&extra), ..input(&messages) });
    assert_eq!(rendered.expect("renders"), "<s>1!");
}

#[test]
fn a_syntax_error_names_the_line_and_the_file() {
    let error =
        ChatTemplate::compile(&text("a\n{% if %}"), SpecialTokens::default()).expect_err("invalid");
    assert!(matches!(error, TemplateError::Syntax { line: 2, .. }), "{error}");
    assert!(error.to_string().ends_with(": chat_template in tokenizer_config.json"), "{error}");
}

#[test]
fn tags_for_training_are_found_whatever_stands_around_them() {
    for (source, expected) in [
        ("a{%- generation -%} b {%+ endgeneration %}", "a{%- with -%} b {%+ endwith %}"),
        ("{% set generation = 1 %}", "{% set generation = 1 %}"),
        ("{{%}{% generation", "{{%}{% generation"),
        ("{%}", "{%}"),
    ] {
        assert_eq!(syntax::without_generation_tags(source), expected);
    }
}

#[test]
fn nested_loops_run_out_of_steps() {
    let template = "{% for i in range(9000) %}{% for j in range(9000) %}{% endfor %}{% endfor %}";
    assert_eq!(render(template, &one_user()), Err(TemplateError::TooLong));
}

#[test]
fn output_beyond_its_limit_is_refused() {
    let template = "{% set x = 'a' * 100000 %}{% for i in range(9000) %}{{ x }}{% endfor %}";
    let limit = LIMITS.rendered_bytes;
    assert_eq!(render(template, &one_user()), Err(TemplateError::OutputTooLarge { limit }));
}

#[test]
fn recursion_without_end_is_refused() {
    for template in ["{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% include 'default' %}"] {
        let error = render(template, &one_user()).expect_err("recursion has an end");
        assert!(matches!(error, TemplateError::Render { .. } | TemplateError::TooLong), "{error}");
    }
}

#[test]
fn blocks_and_brackets_nested_without_end_are_refused() {
    let nested = |open: &str, close: &str| open.repeat(5_000) + &close.repeat(5_000);
    for template in [
        nested("{% if 1 %}", "{% endif %}"),
        nested("{% with %}", "{% endwith %}"),
        format!("{{{{ {} }}}}", nested("(", ")")),
        format!("{{{{ {} }}}}", nested("[", "]")),
    ] {
        let error = ChatTemplate::compile(&text(&template), SpecialTokens::default());
        let error = error.expect_err("too deep").to_string();
        assert!(error.contains("recursion"), "{error}");
    }
}

#[test]
fn the_python_object_model_is_not_there() {
    for template in [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}{{ x }}",
    ] {
        assert!(render(template, &one_user()).is_err(), "{template}");
    }
}

#[test]
fn a_giant_range_or_repetition_is_refused() {
    for template in
        ["{{ range(1000000000) | list }}", "{{ 'a' * 1000000000000 }}", "{{ [1] * 1000000000000 }}"]
    {
        assert!(render(template, &one_user()).is_err(), "{template}");
    }
}

#[test]
fn a_bad_date_format_is_an_error() {
    assert!(matches!(
        render("{{ strftime_now('%!') }}", &one_user()),
        Err(TemplateError::Render { .. })
    ));
}

#[test]
fn a_format_string_of_the_manifest_takes_prompt_and_system_prompt() {
    let text = |t: &str| TemplateText::single(TemplateOrigin::Manifest, t);
    let template =
        ChatTemplate::compile(&text("[{system_prompt}] {{x}} {prompt}"), SpecialTokens::default())
            .expect("valid");
    let messages =
        json!([{"role": "system", "content": "S"}, {"role": "user", "content": "U {prompt}"}]);
    assert_eq!(template.render(&input(&messages)).expect("renders"), "[S] {x} U {prompt}");
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    assert!(matches!(
        template.render(&input(&turns)),
        Err(TemplateError::Message { index: 1, .. })
    ));
    for broken in ["{prompt", "{prompt} {other}", "no field", "{prompt} }"] {
        let error =
            ChatTemplate::compile(&text(broken), SpecialTokens::default()).expect_err(broken);
        assert_eq!(error.code(), "chat_template_invalid", "{broken}");
    }
}

#[test]
fn a_jinja_template_of_the_manifest_is_not_taken_for_a_format_string() {
    let text = TemplateText::single(
        TemplateOrigin::Manifest,
        "{% for m in messages %}{{m.content}}{% endfor %}",
    );
    let template = ChatTemplate::compile(&text, SpecialTokens::default()).expect("valid");
    assert_eq!(template.render(&input(&one_user())).expect("renders"), "Hi");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_template_makes_compile_or_render_panic(source in "([a-z|.(){}%\\-\"'\\[\\]0-9 ]|\\{\\{|\\}\\}|\\{%|%\\}|\\{#|for x in messages|endfor|generation|endgeneration|if|endif|tojson){0,24}") {
        if let Ok(template) = ChatTemplate::compile(&text(&source), SpecialTokens::default()) {
            let _ = template.render(&input(&one_user()));
        }
    }
}
