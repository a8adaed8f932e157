"""The registry: every stage that a pipeline can name, and where its class is. One stage, one module, one name."""

from __future__ import annotations

STAGES: dict[str, str] = {
    # sources
    "read_warc": "dataeng.stages.ingest.read_warc:ReadWarc",
    "read_files": "dataeng.stages.ingest.read_files:ReadFiles",
    # one document at a time
    "filter_url": "dataeng.stages.ingest.filter_url:FilterUrl",
    "assign_domain": "dataeng.stages.ingest.assign_domain:AssignDomain",
    "extract_text": "dataeng.stages.extract.extract_text:ExtractText",
    "identify_language": "dataeng.stages.language.identify_language:IdentifyLanguage",
    "quality_signals": "dataeng.stages.quality.quality_signals:QualitySignals",
    "apply_rules": "dataeng.stages.quality.apply_rules:ApplyRules",
    "remove_lines": "dataeng.stages.quality.remove_lines:RemoveLines",
    "normalize_text": "dataeng.stages.quality.normalize_text:NormalizeText",
    "scrub_pii": "dataeng.stages.privacy.scrub_pii:ScrubPii",
    "datatrove": "dataeng.stages.interop.datatrove:DatatroveBlock",
    "minhash_signatures": "dataeng.stages.dedup.minhash_signatures:MinhashSignatures",
    "apply_chat_template": "dataeng.stages.tokens.apply_chat_template:ApplyChatTemplate",
    # the whole corpus
    "deduplicate_exact": "dataeng.stages.dedup.deduplicate_exact:DeduplicateExact",
    "deduplicate_minhash": "dataeng.stages.dedup.deduplicate_minhash:DeduplicateMinhash",
    "deduplicate_simhash": "dataeng.stages.dedup.deduplicate_simhash:DeduplicateSimhash",
    "deduplicate_lines": "dataeng.stages.dedup.deduplicate_lines:DeduplicateLines",
    "deduplicate_paragraphs": "dataeng.stages.dedup.deduplicate_paragraphs:DeduplicateParagraphs",
    "deduplicate_substrings": "dataeng.stages.dedup.deduplicate_substrings:DeduplicateSubstrings",
    "remove_boilerplate": "dataeng.stages.dedup.remove_boilerplate:RemoveBoilerplate",
    "train_tokenizer": "dataeng.stages.tokens.train_tokenizer:TrainTokenizer",
    # sinks
    "write_packs": "dataeng.stages.tokens.write_packs:WritePacks",
}
