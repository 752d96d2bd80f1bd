"""Exhibits -> jobs -> prices -> processes on this machine, or arrays on a cluster; and what has become of them."""
