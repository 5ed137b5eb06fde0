"""Letters of other scripts that look like Latin ones: what pipeline/folding.py reads as Latin.

From Unicode's confusables.txt 13.0.0 (UTS #39, https://www.unicode.org/reports/tr39/): the letters
whose prototype is one ASCII letter, less those that NFKC or dropped accents give already and those
of scripts that few fonts hold. The small capitals are ours, by their Unicode names.
"""

# Copyright © 1991-2026 Unicode, Inc. Unicode License V3 (SPDX: Unicode-3.0) of the data below:
# Permission is hereby granted, free of charge, to any person obtaining a copy of data files and
# any associated documentation (the "Data Files") or software and any associated documentation
# (the "Software") to deal in the Data Files or Software without restriction, including without
# limitation the rights to use, copy, modify, merge, publish, distribute, and/or sell copies of the
# Data Files or Software, and to permit persons to whom the Data Files or Software are furnished to
# do so, provided that either (a) this copyright and permission notice appear with all copies of the
# Data Files or Software, or (b) this copyright and permission notice appear in associated
# Documentation.
# THE DATA FILES AND SOFTWARE ARE PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
# IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR
# PURPOSE AND NONINFRINGEMENT OF THIRD PARTY RIGHTS. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR
# HOLDERS INCLUDED IN THIS NOTICE BE LIABLE FOR ANY CLAIM, OR ANY SPECIAL INDIRECT OR CONSEQUENTIAL
# DAMAGES, OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
# ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE
# USE OR PERFORMANCE OF THE DATA FILES OR SOFTWARE.
# Except as contained in this notice, the name of a copyright holder shall not be used in
# advertising or otherwise to promote the sale, use or other dealings in these Data Files or
# Software without prior written authorization of the copyright holder.

LATIN: dict[str, str] = {
    "A": "ΑАᎪꓮ",
    "a": "ɑαаᴀ⍶⍺",
    "B": "ΒВᏴꓐꞴ",
    "b": "ƄʙБЬѢѣҌҍᏏ",
    "C": "СҪᏟⲤꓚ",
    "c": "сҫᴄⲥꮯ",
    "D": "ÐƉᎠꓓ",
    "d": "ԁᏧᴅꓒ",
    "E": "ΕЕᎬꓰ",
    "e": "еҽҿᴇ℮ꬲ",
    "F": "Ϝꓝ𝈓",
    "f": "քẝꜰꬵ",
    "G": "ԌᏀᏳꓖ",
    "g": "ƍɡɢց",
    "H": "ΗНҢӇӉᎻⲎꓧ",
    "h": "ʜћһհᏂᏲꚕ",
    "I": "ƖΙІӀⲒ",
    "i": "ıɩɪιіӏᎥᵻᵼ⍳⍸ꙇꭵ",
    "J": "ͿЈᎫꓙ",
    "j": "ϳјᴊ",
    "K": "ΚКҚҞᏦⲔꓗ",
    "k": "ᴋ",
    "L": "ᏞⳐꓡ𝈪",
    "l": "ǀʟꓲ",
    "M": "ΜϺМӍᎷⲘꓟ",
    "m": "ᴍ",
    "N": "ΝⲚꓠ",
    "n": "ɴηոռ",
    "O": "ΘΟθОѲӨՕᎾᏫ⍬Ⲟꓳ𝈚",
    "o": "ɵοσоѳөօᴏᴑⲟꬽꬾꭴꮎꮻ",
    "P": "ΡРᏢⲢꓑ",
    "p": "ρрᴘ⍴ⲣ",
    "q": "ԛգզꞯ",
    "R": "ƦᎡᏒꓣ𝈖",
    "r": "ʀгғᴦⲅꭇꭈꮁ",
    "S": "ЅՏᏕᏚꓢ",
    "s": "ƽѕꜱꮪ",
    "T": "ΤТҬᎢ⍡Ⲧꓔ",
    "t": "ᴛ",
    "U": "ɄՍᏌꓴ",
    "u": "υսᴜᵾꞟꮜ",
    "V": "ѴᏙꓦ𝈍",
    "v": "νѵᴠꮩ",
    "W": "ԜᎳᏔꓪ",
    "w": "ɯѡѽԝաᴡꝡꮃ",
    "X": "ΧХҲⲬꓫꞳ",
    "x": "х",
    "Y": "ΥУҮҰᎩᎽⲨꓬ",
    "y": "ɣʏγуүұ",
    "Z": "ΖᏃꓜ",
    "z": "ᴢꮓ",
}
"""A Latin letter, and those that look like it as they are written, upper or lower case."""
