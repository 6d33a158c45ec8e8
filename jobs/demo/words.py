"""Word lists and sentence templates for the generated catalogue.

A trait is ``told :: asked``: its words in a synopsis, and its words in a reader's query; ``;;`` separates traits on one
line. ``(a|b)`` offers alternatives; ``{place}``, ``{sub}``, ``{pos}``, ``{obj}`` stand for a place and the hero's pronouns.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_names = str.split


class Trait(NamedTuple):
    """One latent trait: its words in synopses (`told`) and in queries (`asked`); `tag` depends on its table, or is ""."""

    told: str
    asked: str
    tag: str = ""


def _table(rows: str) -> tuple[Trait, ...]:
    return tuple(Trait(*row.split(" :: ")) for row in re.split("\n| ;; ", rows.strip()))


def _lines(templates: str) -> tuple[str, ...]:
    return tuple(templates.strip().splitlines())


# The tag is an aside that shows the genre in a synopsis if it is not the main genre.
GENRES = _table("""
(romance|love story) :: (romances|love stories|books about falling in love) :: (a shy courtship|an unlikely sweetheart)
(mystery|detective story) :: (whodunnits|detective fiction|crime puzzles) :: (an unsolved murder|a trail of false clues)
(fantasy|tale of magic) :: (fantasy|books with magic|sword and sorcery) :: (a wandering wizard|a touch of witchcraft)
science fiction (story|novel) :: (sci-fi|science fiction|futuristic books) :: (a runaway robot|a visitor from the stars)
(horror story|ghost story) :: (horror|scary stories|frightening books) :: (a vengeful ghost|a haunted room)
(spy story|espionage novel) :: (spy thrillers|secret agent stories) :: (a secret agent in disguise|a web of spies)
(adventure|tale of exploration) :: (adventures|expedition stories) :: (a perilous voyage|a hunt for treasure)
(sports story|sporting novel) :: (sports fiction|books about athletes) :: (a championship to win|a bruising big match)
(kitchen novel|story of cooks) :: (foodie fiction|books about cooking) :: (a legendary stew|plenty of good cooking)
(musical novel|story of musicians) :: (books about music|music fiction) :: (a half-written song|a travelling orchestra)
(courtroom drama|legal novel) :: (courtroom dramas|books about lawyers) :: (a bitter trial|a shady lawyer in court)
(family saga|domestic drama) :: (family dramas|stories about relatives) :: (a family quarrel|a feud of cousins)
""")
GENRE_NAMES = _names("romance mystery fantasy sci-fi horror espionage adventure sports culinary music legal family")

# Four conflicts for each genre, in the order of GENRES.
CONFLICTS = _table("""
marry (a rival|an enemy) to save the family name :: (wedding|marrying) someone they can't stand for their relatives
choose between two (suitors|admirers) who are brothers :: being courted by (a pair of siblings|two brothers)
pretend to be engaged until the (scandal|gossip) fades :: faking a betrothal (to stop the rumours|for appearances)
win back the (sweetheart|old flame) {sub} jilted long ago :: trying to get an ex back after abandoning them at the altar
unmask whoever (poisoned|tainted) the banquet wine :: finding who (spiked|drugged) the drinks at a party
prove that {pos} brother did not set the fatal fire :: clearing a sibling (accused|suspected) of arson
find a vanished twin before the inquest closes :: searching for a (lost|missing) identical sibling against the clock
decode the (ciphers|coded notes) left beside each victim :: cracking messages that a serial killer leaves
break the curse that turns liars (to stone|into statues) :: lifting a spell that petrifies (dishonest people|liars)
hatch the last dragon egg (unseen|in secret) :: secretly (raising|bringing up) the final winged fire-breather
bargain with a drowned god for a stolen voice :: making a deal with a (water deity|sea god) to be able to speak again
close the door through which the (fairy host|fae) march :: sealing a portal against an army of (elves|fairies)
repair an android that refuses to be switched off :: fixing a (robot|humanoid machine) that doesn't want to shut down
prove that the machine which governs everyone is lying :: showing that the ruling computer can't be (trusted|believed)
(interpret|answer) the signal from a dead star :: making sense of a (transmission|message) from outer space
escape a time loop that repeats one (dreary|terrible) day :: getting out of (a day that keeps starting over|a time loop)
bury a (body|corpse) that keeps coming back :: getting rid of a dead man who won't stay (in the ground|buried)
stop {pos} reflection from climbing out of the mirror :: being hunted by their own (mirror image|face in the glass)
feed whatever is (growing|waking) in the cellar :: tending a hungry monster (under the floor|in the basement)
warn everyone that the children have been replaced :: noticing the kids are (no longer human|not what they were)
smuggle a (defector|turncoat scientist) past three checkpoints :: sneaking a traitor (over the border|to safety)
find the (mole|double agent) in {pos} own network :: rooting out (an informer|a leak) among trusted colleagues
defuse a bomb that nobody (admits|believes) exists :: preventing an explosion the authorities deny is coming
steal the (ledger|list) of every bribed minister :: taking documents that expose (corrupt|crooked) politicians
cross the (salt waste|white desert) with half a map :: trekking over a wasteland with (poor|incomplete) directions
raise a (sunken|drowned) treasure before the pirates do :: diving for lost gold ahead of (raiders|pirates)
lead forty (stranded|lost) travellers over the high pass :: guiding a crowd of people across (the mountains|the peaks)
escape from a prison fortress by homemade (glider|balloon) :: breaking out of jail (by air|in a flying contraption)
train a (hopeless|ragged) rowing crew for the final :: coaching terrible (oarsmen|rowers) for a championship
run one last marathon on a (ruined|bad) knee :: doing a long-distance race (while injured|in spite of a leg injury)
build a ball team out of (rejected|forgotten) players :: assembling a squad of (misfits|players) nobody wanted
ride an (unbroken|untamed) horse in the great derby :: entering a wild (mount|stallion) in a famous race
win the dumpling contest with a (forgotten|burnt) recipe :: cooking a lost dish in a (competition|food contest)
keep the bakery open through a flour (shortage|famine) :: (making|baking) bread when supplies run out
cook a (farewell|victory) banquet for a tyrant {sub} hates :: preparing a feast for a ruler they (despise|loathe)
recover {pos} sense of taste before the grand tasting :: (regaining|getting back) a lost palate in time
finish the (symphony|opera) {pos} teacher left behind :: completing a dead mentor's (composition|score)
conduct a choir that has (forgotten|lost the will) to sing :: directing singers who have (lost heart|given up)
play the violin again with (one good hand|three fingers) :: returning to a stringed instrument after an injury
mend the great (pipe organ|organ) before the jubilee :: restoring a huge keyboard instrument for a ceremony
defend the (thief|swindler) who robbed {pos} own family :: acting as lawyer for a crook who stole from their relatives
persuade one (stubborn|silent) juror to change a verdict :: swaying the lone holdout on the jury
(overturn|reopen) a hanging verdict with a week to spare :: appealing a death sentence before time runs out
sue the mining company that (poisoned|fouled) the water :: taking (polluters|a polluting business) to court
divide an inheritance among four (feuding|bitter) sisters :: settling a will between siblings who don't speak
raise (a niece|a nephew) nobody else would take in :: bringing up a relative's unwanted (child|kid)
admit who the youngest child's (real|true) father is :: confessing (a secret about paternity|who the dad really is)
sell the house in which three generations grew up :: letting go of the old (family home|ancestral home)
""")

# Events that fit any place and age.
EVENTS = _table("""
a stranger arrives wearing {pos} dead uncle's ring :: someone unknown turns up with a relative's jewellery
{pos} best friend confesses to treason :: a close companion admits to betraying the state
the oldest neighbour dies without an heir :: an elder passes away leaving no successor
{pos} sister returns with a newborn :: a sibling brings a baby ;; a portrait is slashed :: somebody vandalises a picture
the drinking water turns red :: what people drink looks bloody ;; a strange light hangs overhead :: the sky glows oddly
all the clocks stop at once :: every timepiece fails together ;; the archive burns down :: the documents go up in flames
a famous visitor disappears :: a celebrity guest goes missing ;; the youngest child stops speaking :: a kid goes mute
an old debt is called in :: creditors want repayment too soon ;; the only road out is cut :: everyone gets stranded
a diary turns up behind a panel :: a hidden notebook is found ;; a general strike begins :: the workers down tools
a bell without a rope rings :: chimes sound all by themselves ;; a local election is rigged :: a vote is fixed
a duel is announced :: somebody issues a challenge to fight ;; a thief returns everything :: a burglar gives it all back
a wedding is called off :: a marriage ceremony is cancelled ;; a rumour of gold gets out :: word goes round about riches
a lookalike appears in {pos} coat :: a double is seen about ;; a letter comes twenty years late :: very old mail arrives
the lamps go out for nine days :: there is a long blackout ;; the yearly festival is banned :: a celebration is outlawed
soldiers seize every spare bed :: troops take the lodgings ;; {sub} loses all memory of a week :: amnesia wipes out days
a fever spreads from bed to bed :: an illness breaks out ;; a prisoner escapes :: a convict gets loose
all the dogs run away :: every pet flees
""")

ROLES = _table("""
an apprentice clockmaker :: (a trainee|someone learning) in the watch trade ;; a midwife :: someone who delivers babies
a runaway heir :: (a fugitive from a rich family|someone who fled wealth) ;; a chimney sweep :: someone who cleans flues
a puppet maker :: (a carver of marionettes|someone who builds puppets) ;; a chess prodigy :: a gifted board game player
a museum guard :: (a security attendant|a watchman) among the exhibits ;; a botanist :: a plant (scientist|expert)
a deaf cartographer :: (a mapmaker|a drawer of maps) who cannot hear ;; a failed poet :: an unsuccessful writer of verse
a schoolteacher :: (a classroom teacher|someone who teaches pupils) ;; a lapsed priest :: a cleric who lost their faith
a fortune teller :: someone who predicts the future with cards ;; a courier :: (a messenger|someone who carries parcels)
a court translator :: a linguist who interprets for officials ;; an orphaned pickpocket :: a young thief without parents
a rat catcher :: (a pest controller|someone who traps vermin) ;; a debt collector :: someone who recovers unpaid loans
a gravedigger :: (a cemetery worker|someone who digs graves) ;; an insomniac librarian :: a sleepless keeper of books
a bookbinder :: a craftsperson who stitches volumes together ;; a one-eyed glassblower :: a half-blind glass artisan
a retired ferry pilot :: (a former|an elderly) boat captain ;; a disgraced surgeon :: a doctor who lost their reputation
a travelling tailor :: a wandering maker of clothes ;; a customs officer :: an inspector of imported goods
a stonecutter :: (a mason|someone who carves rock) ;; a bridge engineer :: someone who designs bridges
a stage magician :: (an illusionist|a conjuror) ;; a lion tamer :: a circus big cat trainer
a beekeeper :: someone who keeps hives ;; a tattooist :: an artist who inks skin ;; a perfumer :: a maker of scents
a locksmith :: someone who makes keys ;; a goatherd :: someone who minds goats ;; an art forger :: a faker of paintings
""")

# The tag lists the ages a setting belongs to: p(ast), m(odern), f(uture).
SETTINGS = _table("""
(at|in) the lighthouse on {place} Point :: (at a beacon|in a lighthouse) on the coast :: pm
in the {place} observatory :: (beside a great telescope|where astronomers work) :: pmf
in the monastery above {place} :: (in a cloister|among monks) up in the hills :: pmf
aboard the orbital station {place} :: (in space|aboard a space habitat) :: f
in the floating market of {place} :: among traders selling from boats :: pmf
in the desert outpost of {place} :: at a far station among dunes :: pmf
in the university town of {place} :: among scholars and students :: pmf
in the theatre quarter of {place} :: among actors and playhouses :: pm
in the clifftop castle of {place} :: in a fortress above the sea :: pm
in the half-drowned city of {place} :: in a flooded metropolis :: mf
in the bamboo forest of {place} :: in a forest of giant canes :: pmf
in the walled garden at {place} :: among enclosed flowerbeds :: pmf
on the whaling island of {place} :: on an isle of harpooners :: pm
aboard the night train to {place} :: on a sleeper railway :: mf ;; in the mining camp at {place} :: among miners :: pmf
in the colony under the {place} ice :: beneath a glacier :: mf ;; on the domed moon of {place} :: on a lunar colony :: f
at {place} boarding school :: at a residential academy :: pmf ;; in the vineyards of {place} :: among winegrowers :: pmf
on the tea terraces of {place} :: on a tea plantation :: pm ;; at the {place} racecourse :: around a horse track :: pm
at the grand hotel {place} :: at a luxury guesthouse :: pm ;; in {place} hospital :: on the wards of an infirmary :: pmf
in the tower blocks of {place} :: in high-rise flats :: mf ;; in the silk mills of {place} :: in a textile factory :: pm
in the {place} marshes :: in swampy wetlands :: pmf
""")

THEMES = _table("""
the lies that hold a marriage together :: husbands and wives deceiving each other ;; the end of childhood :: growing up
loyalty between old friends :: (comrades|lifelong pals) standing by each other ;; found family :: strangers becoming kin
the bond between people and animals :: (creatures|pets) and their humans ;; the slow work of grief :: mourning someone
the price of forgiveness :: (letting go of grudges|learning to pardon) ;; the hunger for revenge :: wanting to get even
the weight of inherited guilt :: paying for what one's ancestors did ;; the stubbornness of hope :: refusing to despair
the loneliness of exile :: being far from home and unable to return ;; the meaning of hospitality :: welcoming outsiders
the burden of a great talent :: being gifted and suffering for it ;; the danger of ambition :: wanting success too much
how memory betrays us :: not being able to trust what you recall ;; the gulf between rich and poor :: class inequality
the thrill of a second chance :: starting over late in life ;; the shame of cowardice :: having once failed to be brave
the comfort of routine :: finding peace in everyday habits ;; the courage to disobey :: standing up to those in power
""")

TONES = _table("""
(breathless|headlong) :: (fast-paced|gripping|page-turning) ;; (lyrical|lushly written) :: (poetic|beautifully written)
(wistful|elegiac) :: (bittersweet|melancholy|nostalgic) ;; (playful|mischievous) :: (funny|lighthearted|humorous)
(uncanny|dreamlike) :: (surreal|strange|hallucinatory) ;; (deadpan|dry-witted) :: (satirical|ironic|sardonic)
(cosy|snug) :: (comforting|gentle|heartwarming) ;; (rousing|stirring) :: (uplifting|inspiring)
(bleak|pitiless) :: (grim|depressing|dark) ;; (furious|fiery) :: (angry|outraged)
""")

# The first era is never mentioned and never asked for; the tag is its age.
ERAS = _table("""
- :: - :: m
in the last years of the sailing fleets :: in the age of (sail|tall ships) :: p
during the plague years :: (while the plague rages|in a time of pestilence) :: p
in the decade after the long war :: just after a (great conflict|war) has ended :: p
in the summer of the great strikes :: in a year of labour unrest :: m
a hundred years from now :: (in the next century|generations ahead) :: f
after the (oceans|seas) have risen :: (when sea level has gone up|after climate disaster) :: f
""")

AUDIENCES = _table("""
for (young children|bedtime reading) :: (for a seven year old|to read aloud to little kids) :: children
for readers of (nine to twelve|middle-school age) :: (for a ten year old|for my eleven year old) :: middle grade
for (teenagers|young adults) :: (for a fifteen year old|for a high school student) :: teen
for (adults|grown-up readers) :: (for a mature reader|for adults only) :: adult
""")

# Syllables of invented names: a person has a given name and a family name, a place has one name.
GIVEN_STARTS = _names("Al Bri Cor Dal El Fen Gal Hes Il Jor Kel Lor Mar Nel Or Pel Quin Ros Sel Tam Ul Vel Wen Yl Zan")
MIDDLES = _names("a e i o u el en er in on or")
GIVEN_ENDS = _names("da dric na len mira rin sa vane wyn tha bel dor gar lo nor pe ra sko til ma vik xen mund lette")
FAMILY_STARTS = _names("Ab Barr Cald Drav Ev Farr Gris Hal Ing Kitt Lang Mord Neth Penn Quill Thist Umb Whit")
FAMILY_ENDS = _names("by combe dale den fell gate grove ham holt hurst land ley mere more rand shaw stead ton vik well")
PLACE_STARTS = _names("Ard Bel Carr Dess El Fir Gorm Hol Isk Jun Kar Lum Mir Nor Osk Pal Quor Rhen Sav Torv Ull Vesk")
PLACE_ENDS = _names("bar dine burg doon resk garth ven minster mouth nath peth quay reth stad thorpe wold zend")

TITLE_ADJECTIVES = _names("""
Amber Bitter Borrowed Broken Burning Copper Crooked Distant Empty Faithful Forgotten Frozen Gentle Gilded Hidden Hollow
Hungry Iron Ivory Last Lonely Lucky Marble Midnight Narrow Patient Quiet Restless Rusted Scarlet Second Silent Wild
""")
TITLE_NOUNS = _names("""
Almanac Anchor Arrow Basket Blanket Bottle Bramble Button Candle Chair Coin Compass Crown Curtain Drum Echo Ember
Feather Gate Hammer Hour Kettle Kite Knot Ladder Lantern Lemon Map Mask Moth Needle Nest Oar Paper Pearl Question
Ribbon Saddle Shadow Spoon Staircase Swallow Teapot Thimble Thread Tide Umbrella Violet Wagon Whistle Window Winter
""")
GROUP_NOUNS = _names("Chronicles Cycle Ledgers Papers Sequence Casebook Voyages Annals Letters Nights Saga Tapestry")

# Sentences of a synopsis, in order, with one of the two kinds of aside. The first letter becomes a capital afterwards.
INTROS = _lines("""
{hero} is {role} {setting}{when}.
{setting}{when}, people know {hero} only as {role}.
{lead}{hero} has spent years {setting} as {role}.
nobody {setting} pays much attention to {hero}, {role}{when}.
{lead}{role} called {hero} keeps out of trouble {setting}.
""")
TURNS = _lines("""
when {event}, {sub} must {conflict}.
then {event}, and {hero} sets out to {conflict}.
everything changes once {event}: now {sub} has to {conflict}.
{sub} has vowed to {conflict}, and matters grow worse when {event}.
the plan is to {conflict}; nothing goes to plan after {event}.
""")
ASIDES = _lines("""
only {friend} believes {sub} can do it.
{friend} offers help, though not for free.
even {friend}, who has known {obj} longest, advises against it.
""")
GENRE_ASIDES = _lines("""
along the way, expect {genres}.
{friend} brings {genres} into it.
there is also {genres}.
""")
CLOSES = _lines("""
in this {tone} {label} {audience}, {author} writes about {theme}.
{author} turns {theme} into {a_tone} {label} {audience}.
{a_tone} {label} {audience} by {author}, with {theme} at its heart.
{author} has written {a_tone} {label} {audience}, and the real subject is {theme}.
""")
TITLES = _lines("""
The {adjective} {noun}
The {noun} of {place}
{hero} and the {adjective} {noun}
{adjective} {noun}, {adjective2} {noun2}
The {noun} and the {noun2}
""")

# A relevant item must have all traits that the template names.
QUERIES = {
    "plot": _lines("""
a story about {role} {conflict} {setting}
{setting}, {role} ends up {conflict}
which book has {role} {conflict} after {event}?
looking for the one where {event} and {role} winds up {conflict}
trying to remember a title: {event}, and somebody {setting} is {conflict}
{role} {conflict}
I read a novel set {setting}, it was about {conflict} and {theme}
the book in which {event}; the hero is {role} living {setting}
"""),
    "mood": _lines("""
{tone} {genre} set {setting}
I am in the mood for {genre}, something {tone} about {theme}
{genre} set {setting} and {era}
{tone} {genre} {era}, please
looking for {genre} about {theme}, set {setting}
{tone} {genre} with {role} in the lead
"""),
    "author_genre": _lines("""
{genre} by {author}
what has {author} written in the way of {genre}?
only the {genre} from {author}, not the rest
"""),
    "franchise": _lines("""
{group}, the volume where {event}
which part of {group} has someone {conflict}?
{group} instalment in which {event}
{group} series: the one about {conflict}
"""),
    "audience": _lines("""
{genre} {audience} about {theme}
need a present: {tone} {genre} {audience}, set {setting}
{tone} books {audience}, {theme} is the subject
"""),
}
