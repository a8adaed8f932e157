"""Query parameters that say how a visitor came to a page or who they are, not which page it is.

Names without regard to case; one that ends in ``*`` is a beginning. A number is how many letters and digits the value must
have, and nothing else, to count: short names have other meanings, too (``sid=7`` is a section or a story).
"""

from __future__ import annotations

#: source → parameter → least length of its value (0: any)
TRACKING_PARAMETERS: dict[str, dict[str, int]] = {
    # Campaign parameters that the analytics programs themselves document.
    "Google Analytics": {"utm_*": 0, "_ga": 0, "_gl": 0},
    "Matomo": {"mtm_*": 0, "matomo_*": 0, "pk_*": 0, "piwik_*": 0},
    "Adobe Analytics": {"s_cid": 0, "s_kwcid": 0, "ef_id": 0},
    "HubSpot": {"_hsenc": 0, "_hsmi": 0, "__hsfp": 0, "__hssc": 0, "__hstc": 0, "hsctatracking": 0, "hsa_*": 0},
    "AT Internet": {"at_medium": 0, "at_campaign": 0, "at_recipient_id": 0, "at_recipient_list": 0, "xtor": 0},
    # Click identifiers that advertisers add, as browsers remove them (Brave's query filter, components/query_filter in
    # github.com/brave/brave-core, names only; those for single sites left out).
    "Brave query filter": {
        "__s": 0,
        "_bhlid": 0,
        "_branch_match_id": 0,
        "_branch_referrer": 0,
        "_kx": 0,
        "_openstat": 0,
        "bbeml": 0,
        "bsft_clkid": 0,
        "bsft_uid": 0,
        "dclid": 0,
        "et_rid": 0,
        "fb_action_ids": 0,
        "fbclid": 0,
        "gbraid": 0,
        "gclid": 0,
        "guce_referrer": 0,
        "guce_referrer_sig": 0,
        "irclickid": 0,
        "mc_eid": 0,
        "mkt_tok": 0,
        "ml_subscriber": 0,
        "ml_subscriber_hash": 0,
        "msclkid": 0,
        "oly_anon_id": 0,
        "oly_enc_id": 0,
        "rb_clickid": 0,
        "srsltid": 0,
        "ss_email_id": 0,
        "twclid": 0,
        "vero_conv": 0,
        "vero_id": 0,
        "vgo_ee": 0,
        "wbraid": 0,
        "wickedid": 0,
        "yclid": 0,
        "ymclid": 0,
        "ysclid": 0,
    },  # fmt: skip
    "other advertisers": {
        "gclsrc": 0,
        "igshid": 0,
        "mc_cid": 0,
        "ttclid": 0,
        "li_fat_id": 0,
        "fb_ref": 0,
        "fb_source": 0,
        "action_object_map": 0,
        "action_type_map": 0,
        "action_ref_map": 0,
        "wt_mc": 0,
        "ncid": 0,
        "cmpid": 0,
    },  # fmt: skip
    # C4 (Raffel et al. 2020; tensorflow_datasets, c4_utils.get_clean_page_fn's URL key) removes utm_*, ref and feed.
    "C4": {"ref": 0, "feed": 0},
}

SESSION_PARAMETERS: dict[str, dict[str, int]] = {
    # Heritrix's canonicalization rules (StripSessionIDs, StripSessionCFIDs), as the Wayback Machine uses them: 32 letters
    # and digits for the short name, any value where the name leaves no doubt.
    "Heritrix": {"sid": 32, "phpsessid": 0, "jsessionid": 0, "cfid": 0, "cftoken": 0, "aspsessionid*": 0},
    "ours": {"sessionid": 0, "session_id": 0, "sessid": 0, "sess_id": 0, "zenid": 0, "oscsid": 0},
}

PARAMETER_LISTS: dict[str, dict[str, dict[str, int]]] = {
    "@tracking": TRACKING_PARAMETERS,
    "@session": SESSION_PARAMETERS,
}
"""What a configuration may name."""


def parameters_of(names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Returns parameters with the least length of their values, lists (``@tracking``) replaced by what is in them.

    Raises:
      ValueError: no list has this name.
    """
    found: list[tuple[str, int]] = []
    for name in names:
        if not name.startswith("@"):
            found.append((name, 0))
        elif name in PARAMETER_LISTS:
            found += [entry for source in PARAMETER_LISTS[name].values() for entry in source.items()]
        else:
            raise ValueError(f"no list of query parameters is called {name!r}; there are {', '.join(PARAMETER_LISTS)}")
    return found
