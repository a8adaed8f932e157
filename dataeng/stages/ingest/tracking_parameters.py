"""Query parameters that say how a visitor came to a page or who they are, not which page it is.

Names without regard to case; one that ends in ``*`` is a beginning. ``name:32`` counts only with a value of at
least 32 letters and digits and nothing else: short names have other meanings, too (``sid=7`` is a section or a
story).
"""

from __future__ import annotations

from collections.abc import Iterable

#: source → names
TRACKING_PARAMETERS: dict[str, str] = {
    # Campaign parameters that the analytics programs themselves document.
    "Google Analytics": "utm_* _ga _gl",
    "Matomo": "mtm_* matomo_* pk_* piwik_*",
    "Adobe Analytics": "s_cid s_kwcid ef_id",
    "HubSpot": "_hsenc _hsmi __hsfp __hssc __hstc hsctatracking hsa_*",
    "AT Internet": "at_medium at_campaign at_recipient_id at_recipient_list xtor",
    # Click identifiers that advertisers add, as Brave removes them (github.com/brave/brave-core,
    # components/query_filter: names only, those for single sites left out).
    "Brave query filter": (
        "__s _bhlid _branch_match_id _branch_referrer _kx _openstat bbeml bsft_clkid bsft_uid dclid et_rid "
        "fb_action_ids fbclid gbraid gclid guce_referrer guce_referrer_sig irclickid mc_eid mkt_tok ml_subscriber "
        "ml_subscriber_hash msclkid oly_anon_id oly_enc_id rb_clickid srsltid ss_email_id twclid vero_conv vero_id "
        "vgo_ee wbraid wickedid yclid ymclid ysclid"
    ),
    "other advertisers": (
        "gclsrc igshid mc_cid ttclid li_fat_id fb_ref fb_source action_object_map action_type_map action_ref_map wt_mc "
        "ncid cmpid"
    ),
    # C4 (Raffel et al. 2020; tensorflow_datasets, c4_utils): its key of a URL is without utm_*, ref and feed.
    "C4": "ref feed",
}

SESSION_PARAMETERS: dict[str, str] = {
    # Heritrix's canonicalization rules (StripSessionIDs, StripSessionCFIDs), as the Wayback Machine uses them: 32
    # letters and digits for the short name, any value where the name leaves no doubt.
    "Heritrix": "sid:32 phpsessid jsessionid cfid cftoken aspsessionid*",
    "web frameworks": "sessionid session_id sessid sess_id zenid oscsid",
}

PARAMETER_LISTS: dict[str, dict[str, str]] = {"@tracking": TRACKING_PARAMETERS, "@session": SESSION_PARAMETERS}
"""What a configuration may name."""


def parameters_of(names: Iterable[str]) -> list[tuple[str, int]]:
    """Returns parameters with the least length of their values, lists (``@tracking``) replaced by what is in them.

    Raises:
      ValueError: no list has this name, or a name is empty or not ASCII.
    """
    found: list[tuple[str, int]] = []
    for name in names:
        if not name.startswith("@"):
            if not name.removesuffix("*") or not name.isascii():
                raise ValueError(f"{name!r} cannot be the name of a query parameter: expected ASCII characters")
            found.append((name, 0))
            continue
        if name not in PARAMETER_LISTS:
            raise ValueError(f"no list of query parameters is called {name!r}; there are {', '.join(PARAMETER_LISTS)}")
        for entry in " ".join(PARAMETER_LISTS[name].values()).split():
            bare, _, least = entry.partition(":")
            found.append((bare, int(least or 0)))
    return found
