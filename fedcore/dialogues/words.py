"""Word lists that all domains draw from."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Anna Ben Clara David Emma Felix Grace Henry Irene Jack Karen Leo Maria Nora Oscar Paula "
    "Quinn Rosa Samuel Tina Ursula Victor Wendy Xavier Yusuf Zoe Ahmed Bianca Carlos Diana Elif "
    "Farid Gita Hugo Ines Jonas Kofi Laila Marco Nadia Omar Priya Rahul Sofia Tariq Uma Vera "
    "Wei Yuki Zara Adam Bella Chen Dora Eric Fiona George Hana Ivan Julia Kevin Linda Martin "
    "Nina Olga Peter Ruth Simon Teresa Umar Viola Walter Amina Bruno Celia Dmitri Esther Frank "
    "Gloria Hassan Ida Joel Kim Lars Mei Noah Petra Ravi Sara Tom Vikram Alice Boris Chloe Dan "
    "Eva Fred Helen Isaac Jana Kurt Lucy Max Naomi Otto Pia Ralph Stella Theo Violet Will"
)
SURNAMES = _words(
    "Adams Baker Carter Diaz Evans Fischer Garcia Hill Ito Jones Khan Lopez Moore Novak Olsen "
    "Patel Quist Reed Silva Turner Unger Vance Walsh Young Zhang Becker Costa Dunn Flores Grant "
    "Hale Jensen Keller Lang Meyer Nash Okoye Price Rossi Stone Tran Weber Wood Brown Smith "
    "Martin Clark Hughes Murphy Singh"
)
CITIES = _words(
    "Paris London Rome Berlin Madrid Vienna Oslo Dublin Lisbon Prague Cairo Delhi Tokyo Boston "
    "Chicago Denver Toronto Lima Quito Athens Milan Geneva Hamburg Leeds Porto Seville Kyoto "
    "Nairobi Lagos Accra Seoul Osaka Sydney Perth Dallas Austin Bergen Zurich Krakow"
)
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words(
    "January February March April May June July August September October November December"
)
COLOURS = _words("red blue green black white grey yellow brown pink purple orange silver")
THINGS = _words(
    "key bag book chair lamp phone letter ticket coat umbrella basket blanket bottle box brush "
    "camera candle card carpet clock cup curtain drum fan flag flute glass glove guitar hammer "
    "hat helmet jar kettle kite knife ladder map mirror needle net notebook painting pan paper "
    "pen pencil piano pillow pipe plate pot radio ring rope ruler scarf shelf shirt shoe soap "
    "spoon stamp stick stool suitcase sweater table tape tent towel toy tray vase violin wallet "
    "watch wheel whistle window wire bread butter cheese cherry coffee corn honey lemon mango "
    "milk mint onion pepper plum rice salt sugar tea tomato vinegar walnut bicycle boat bridge "
    "castle church farm field forest harbour hill island lake market mountain museum river road "
    "school station street theatre tower tunnel valley village story song poem plan report "
    "record notice order claim case offer reply advice answer question reason result rule file "
    "form list note number page part client job work bill payment contract deposit problem plan "
    "price owner patient visit deadline return doctor lawyer pain cough throat ankle rash fever "
    "headache stomach arm chest blood test tablet ointment week month weight loss vision nausea "
    "engine battery brake tyre oil leak clutch belt radiator exhaust van truck tractor pickup "
    "scooter pad plug gasket axle labour wage landlord employer insurer bank neighbour partner "
    "publisher signature will appeal settlement warning court witness statement agreement notice "
    "dispute boundary mediation breath fluid inhaler caffeine windscreen absorber gearbox statute "
    "custody child insomnia allergy"
)
ONSETS = _words("b ch d f g h j k l m n p r s sh t v w y z br dr gr kl pl st tr")
VOWELS = _words("a e i o u ai ea ou")
CODAS = ("", "", "", "n", "r", "l", "s", "x", "m", "th")
