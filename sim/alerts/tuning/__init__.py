"""Every setting of a rule, played on several pasts: what each would have caught, how soon, for how many false pages."""
